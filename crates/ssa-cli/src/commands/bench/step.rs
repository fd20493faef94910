//! `ssa bench step`.

use anyhow::Result;
use serde::Serialize;
use ssa_bench::{Effort, Meter, Peaks, StepReport, StepSettings};
use ssa_model::{Method, ModelSettings, SparseBudget};
use ssa_ranks::World;
use ssa_report::number::{counted, grouped};
use ssa_report::{Column, Row, Table};
use ssa_train::{TrainConfig, TrainPlan};

use super::{percent, print_peaks, rate, record};
use crate::args::{BenchStepArgs, DeviceChoice};
use crate::commands::{device, memory};
use crate::display::{note, print, render};

/// Tokens per row of a preset.
const PRESET_TOKENS: usize = 8192;

#[derive(Serialize)]
struct Settings<'a> {
    model: &'a str,
    method: Method,
    budget: SparseBudget,
    tokens: usize,
    batch: usize,
    recompute: bool,
    warm_up: usize,
}

pub(super) fn run(args: &BenchStepArgs, choice: DeviceChoice) -> Result<()> {
    record::check(&args.record)?;
    let plan = TrainPlan::new(configuration(args)?)?;
    let name = args.config.as_ref().map_or(args.preset.clone(), |path| path.display().to_string());
    let settings = Settings {
        model: &name,
        method: plan.config().objective.method,
        budget: plan.model().budget,
        tokens: plan.sequence_length(),
        batch: args.batch,
        recompute: plan.objective().recompute,
        warm_up: args.warm_up,
    };
    let device = device::open(choice)?;
    memory::require_step(&plan, &device, &World::alone())?;
    let meter = Meter::new(&device, Effort::default());
    let peaks = Peaks::measure(&meter)?;
    let steps = StepSettings { warm_up: args.warm_up, steps: args.steps };
    let mut done = 0;
    let report = ssa_bench::step(plan, &device, steps, &mut |metrics| {
        done += 1;
        note(&format!("step {done}: {:.1} ms, loss {:.3}", metrics.seconds * 1e3, metrics.loss));
    })?;
    print(&format!(
        "{name}, {}, {} of {}, {}",
        settings.method,
        counted(settings.batch, "row"),
        counted(settings.tokens, "token"),
        counted(report.parameters, "parameter")
    ))?;
    print_peaks(&peaks)?;
    print(&render(&table(&report, &peaks)))?;
    if let Some(peak) = report.peak_bytes {
        let reserved = report.peak_reserved_bytes.unwrap_or(peak);
        let [peak, reserved] = [peak, reserved].map(|bytes| bytes as f64 / 1e9);
        print(&format!("peak memory {peak:.1} GB in buffers, {reserved:.1} GB reserved"))?;
    }
    if let Some(waits) = report.host_waits {
        print(&format!("host waits for the GPU in the last step: {waits}"))?;
    }
    if let Some(kernels) = report.kernels {
        print(&format!(
            "kernels: {} compiled in {:.1} s, {} read from the cache in {:.2} s",
            kernels.compiled, kernels.compile_seconds, kernels.cached, kernels.read_seconds
        ))?;
    }
    record::write(&args.record, "step", &device, &peaks, &settings, &report)
}

/// The configuration to train with; its data is not used.
fn configuration(args: &BenchStepArgs) -> Result<TrainConfig> {
    let mut config = match &args.config {
        Some(path) => TrainConfig::load(path, &[])?,
        None => preset(&args.preset)?,
    };
    if let Some(tokens) = args.tokens {
        config.data.sequence_length = tokens;
    }
    if let Some(method) = args.method {
        config.objective.method = method;
    }
    if let Some(budget) = args.budget {
        config.model.block_size = budget.block_size();
        config.model.block_counts = budget.block_counts();
    }
    // Random ids and weights: no text is opened. Keep the tokenizer, which may determine the
    // vocabulary size.
    config.data.paths.clear();
    config.data.valid_paths.clear();
    config.data.corpora.clear();
    config.data.valid_corpora.clear();
    config.model.init_from = None;
    let training = &mut config.training;
    training.batch_size = args.batch;
    training.micro_batch_size = None;
    training.batch_size_start = None;
    training.batch_ramp_steps = 0;
    training.recompute |= args.recompute;
    Ok(config)
}

fn preset(name: &str) -> Result<TrainConfig> {
    let settings = ModelSettings::preset(name)?;
    let mut config = TrainConfig::default();
    let model = &mut config.model;
    model.vocab_size = Some(settings.vocab_size);
    model.hidden_size = settings.hidden_size;
    model.intermediate_size = settings.intermediate_size;
    model.num_hidden_layers = settings.num_hidden_layers;
    model.num_attention_heads = settings.num_attention_heads;
    model.num_key_value_heads = settings.num_key_value_heads;
    model.head_dim = settings.head_dim;
    model.block_size = settings.budget.block_size();
    model.block_counts = settings.budget.block_counts();
    config.data.sequence_length = PRESET_TOKENS;
    Ok(config)
}

fn table(report: &StepReport, peaks: &Peaks) -> Table {
    let columns = vec![
        Column::text("stream"),
        Column::number("steps").rank(1),
        Column::number("ms"),
        Column::number("tok/s"),
        Column::number("TFLOP/s"),
        Column::number("MFU"),
        Column::number("loss").rank(2),
    ];
    let cells = |row: &ssa_bench::StepRow| {
        vec![
            row.stream.to_owned(),
            row.steps.to_string(),
            format!("{:.1}", row.ms),
            grouped(row.tokens_per_second.round() as u64),
            rate(Some(row.tflops)),
            percent(Some(row.tflops), peaks.tflops),
            format!("{:.3}", row.loss),
        ]
    };
    Table::new(columns, report.rows.iter().map(|row| Row::new(cells(row))))
}
