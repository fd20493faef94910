//! `ssa bench decode`.

use anyhow::Result;
use serde::Serialize;
use ssa_bench::{DecodeRow, DecodeSettings, Effort, Meter, Peaks};
use ssa_model::ModelSettings;
use ssa_report::number::grouped;
use ssa_report::{Column, NONE, Row, Table};

use super::{percent, print_peaks, rate, record};
use crate::args::{BenchDecodeArgs, DeviceChoice};
use crate::commands::device;
use crate::display::{note, print, render};

#[derive(Serialize)]
struct Settings<'a> {
    model: &'a str,
    #[serde(flatten)]
    decode: &'a DecodeSettings,
}

pub(super) fn run(args: &BenchDecodeArgs, choice: DeviceChoice) -> Result<()> {
    record::check(&args.record)?;
    let model = ModelSettings::preset(&args.preset)?;
    let decode = DecodeSettings {
        batches: args.batch.clone(),
        contexts: args.context.clone(),
        attentions: args.attention.clone(),
        budget: args.budget.unwrap_or(model.budget),
        steps: args.steps,
        warm_up: args.warm_up,
        prefill: args.prefill,
    };
    let device = device::open(choice)?;
    let meter = Meter::new(&device, Effort::default());
    let peaks = Peaks::measure(&meter)?;
    let rows = ssa_bench::decode(model, &device, &decode, &mut |row| {
        let DecodeRow { batch, context, attention, ms, .. } = row;
        note(&format!("batch {batch}, context {context}, {attention}: {ms:.3} ms"));
    })?;
    print_peaks(&peaks)?;
    print(&render(&table(&rows, &peaks)))?;
    let settings = Settings { model: &args.preset, decode: &decode };
    record::write(&args.record, "decode", &device, &peaks, &settings, &rows)
}

fn table(rows: &[DecodeRow], peaks: &Peaks) -> Table {
    let columns = vec![
        Column::number("batch"),
        Column::number("context"),
        Column::text("attention"),
        Column::number("ms"),
        Column::number("tok/s"),
        Column::number("attention ms").rank(1),
        Column::number("MB read").rank(3),
        Column::number("GB/s").rank(2),
        Column::number("of peak"),
        Column::number("prefill ms"),
    ];
    let cells = |row: &DecodeRow| {
        let attention = row.without_attention_ms.map(|without| row.ms - without);
        vec![
            row.batch.to_string(),
            grouped(row.context as u64),
            row.attention.to_string(),
            format!("{:.3}", row.ms),
            grouped(row.tokens_per_second.round() as u64),
            attention.map_or(NONE.to_owned(), |ms| format!("{ms:.3}")),
            grouped(row.bytes as u64 / 1_000_000),
            rate(Some(row.gb_per_s())),
            percent(Some(row.gb_per_s()), peaks.gb_per_s),
            row.prefill_ms.map_or(NONE.to_owned(), |ms| format!("{ms:.1}")),
        ]
    };
    Table::new(columns, rows.iter().map(|row| Row::new(cells(row))))
}
