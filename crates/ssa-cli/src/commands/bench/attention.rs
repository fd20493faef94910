//! `ssa bench attention`.

use anyhow::Result;
use ssa_bench::{AttentionRow, AttentionSettings, Effort, Meter, Peaks};
use ssa_kernels::Device;
use ssa_report::{Column, NONE, Row, Table};

use super::{percent, print_peaks, rate, record};
use crate::args::{BenchAttentionArgs, DeviceChoice};
use crate::commands::{device, memory};
use crate::display::{note, print, render};

pub(super) fn run(args: &BenchAttentionArgs, choice: DeviceChoice) -> Result<()> {
    record::check(&args.record)?;
    let device = device::open(choice)?;
    let settings = AttentionSettings {
        tokens: if args.tokens.is_empty() { default_tokens(&device) } else { args.tokens.clone() },
        budgets: args.budgets.clone(),
        q_heads: args.heads.q_heads,
        kv_heads: args.heads.kv_heads,
        head_dim: args.head_dim,
    };
    if device == Device::Cpu {
        // On a GPU, a part without enough memory is reported and the others are measured.
        memory::require(&device, ssa_bench::attention_bytes(&settings), "the longest row", |_| {
            "pass smaller --tokens, --heads or --head-dim".to_owned()
        })?;
    }
    let meter = Meter::new(&device, Effort::default());
    let peaks = Peaks::measure(&meter)?;
    let rows = ssa_bench::attention(&meter, &settings, &mut |row| {
        let result = row
            .timing
            .as_ref()
            .map_or("failed".to_owned(), |timing| format!("{:.3} ms", timing.ms));
        note(&format!("{} {}: {result}", row.tokens, label(row)));
    })?;
    print_peaks(&peaks)?;
    print(&render(&table(&rows, &peaks)))?;
    for (row, error) in rows.iter().filter_map(|row| Some((row, row.error.as_ref()?))) {
        print(&format!("{} {}: {error}", row.tokens, label(row)))?;
    }
    record::write(&args.record, "attention", &device, &peaks, &settings, &rows)
}

fn default_tokens(device: &Device) -> Vec<usize> {
    match device {
        Device::Cpu => vec![512, 2048],
        _ => (11..=17).map(|power| 1 << power).collect(),
    }
}

fn label(row: &AttentionRow) -> String {
    let budget = row.budget.map(|budget| format!(" {budget}")).unwrap_or_default();
    let selection =
        row.selection.map(|selection| format!(", {selection} blocks")).unwrap_or_default();
    format!("{}{budget}{selection}", row.part)
}

fn table(rows: &[AttentionRow], peaks: &Peaks) -> Table {
    let columns = vec![
        Column::text("part"),
        Column::number("tokens"),
        Column::number("ms"),
        Column::number("TFLOP/s"),
        Column::number("of peak").rank(3),
        Column::number("GB/s").rank(1),
        Column::number("of peak").rank(2),
    ];
    let cells = |row: &AttentionRow| {
        let ms = row.timing.as_ref().map_or(NONE.to_owned(), |timing| format!("{:.3}", timing.ms));
        vec![
            label(row),
            row.tokens.to_string(),
            ms,
            rate(row.tflops),
            percent(row.tflops, peaks.tflops),
            rate(row.gb_per_s),
            percent(row.gb_per_s, peaks.gb_per_s),
        ]
    };
    Table::new(columns, rows.iter().map(|row| Row::new(cells(row))))
}
