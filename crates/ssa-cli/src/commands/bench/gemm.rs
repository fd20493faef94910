//! `ssa bench gemm`.

use anyhow::Result;
use serde::Serialize;
use ssa_bench::{Effort, GemmRow, Meter, Peaks};
use ssa_model::{ModelConfig, ModelSettings};
use ssa_report::{Column, Row, Table};

use super::{percent, print_peaks, rate, record};
use crate::args::{BenchGemmArgs, DeviceChoice};
use crate::commands::{device, memory};
use crate::display::{note, print, render};

#[derive(Serialize)]
struct Settings<'a> {
    presets: &'a [String],
    tokens: usize,
}

#[derive(Serialize)]
struct ModelRows<'a> {
    preset: &'a str,
    rows: Vec<GemmRow>,
}

pub(super) fn run(args: &BenchGemmArgs, choice: DeviceChoice) -> Result<()> {
    record::check(&args.record)?;
    let models =
        args.presets.iter().map(|name| Ok((name, ModelConfig::new(ModelSettings::preset(name)?)?)));
    let models = models.collect::<Result<Vec<_>>>()?;
    let device = device::open(choice)?;
    for (preset, config) in &models {
        let bytes = ssa_bench::gemm_bytes(config, args.tokens);
        memory::require(&device, bytes, &format!("the largest product of {preset}"), |_| {
            "pass smaller --tokens".to_owned()
        })?;
    }
    let meter = Meter::new(&device, Effort::default());
    let peaks = Peaks::measure(&meter)?;
    print_peaks(&peaks)?;
    let mut results = Vec::new();
    for (preset, config) in models {
        let mut observe = |row: &GemmRow| {
            note(&format!("{preset} {} {}: {:.3} ms", row.product, row.pass, row.timing.ms))
        };
        let rows = ssa_bench::gemm(&meter, &config, args.tokens, &mut observe)?;
        print(preset)?;
        print(&render(&table(&rows, &peaks)))?;
        results.push(ModelRows { preset, rows });
    }
    let settings = Settings { presets: &args.presets, tokens: args.tokens };
    record::write(&args.record, "gemm", &device, &peaks, settings, results)
}

fn table(rows: &[GemmRow], peaks: &Peaks) -> Table {
    let columns = vec![
        Column::text("product"),
        Column::number("pass"),
        Column::number("rows x inputs x outputs").rank(1),
        Column::number("ms"),
        Column::number("TFLOP/s"),
        Column::number("of peak").rank(2),
    ];
    let cells = |row: &GemmRow| {
        vec![
            row.product.to_owned(),
            row.pass.to_owned(),
            format!("{} x {} x {}", row.rows, row.inputs, row.outputs),
            format!("{:.3}", row.timing.ms),
            rate(Some(row.tflops)),
            percent(Some(row.tflops), peaks.tflops),
        ]
    };
    Table::new(columns, rows.iter().map(|row| Row::new(cells(row))))
}
