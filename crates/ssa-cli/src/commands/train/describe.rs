//! The description of a run before its first step.

use anyhow::Result;
use ssa_data::{Dataset, HeldOut, HeldOutPart, PackedRows};
use ssa_kernels::Device;
use ssa_model::{AttentionMode, ModelConfig, parameter_count};
use ssa_train::{BatchRamp, RunDir, TrainPlan, Trainer};

use ssa_report::number::{counted, grouped};

use crate::display::{note, print};

/// With fewer tokens, the second digit of a loss is noise: with a standard deviation of 2.5 bits
/// per token, the standard error of bits per byte is 0.025 at this many tokens.
const MEANINGFUL_TOKENS: u64 = 10_000;

/// Describes a run before its first step.
pub(super) fn run(trainer: &Trainer, data: &Dataset, run_dir: &RunDir) {
    let plan = trainer.plan();
    for line in lines(plan, data, &trainer.model().device()) {
        note(&line);
    }
    note(&format!("run directory: {}", run_dir.path().display()));
    if trainer.done() > 0 {
        note(&format!("resuming after step {}", trainer.done()));
    }
}

/// Ends a dry run: describes what would be trained, and gives the verdict.
pub(super) fn verdict(
    plan: &TrainPlan,
    data: &Dataset,
    device: &Device,
    verdict: &str,
) -> Result<()> {
    lines(plan, data, device).iter().try_for_each(|line| print(line))?;
    print(&format!("verdict: {verdict}"))
}

/// The device of a run and its name.
pub(super) fn device_name(device: &Device) -> String {
    match device {
        Device::Cuda(gpu) => format!("{device} ({})", gpu.properties().name),
        _ => device.to_string(),
    }
}

fn lines(plan: &TrainPlan, data: &Dataset, device: &Device) -> Vec<String> {
    let mut lines = vec![model_line(plan.model())];
    lines.extend(plan.init_from().map(|name| format!("weights: from {}", name.display())));
    if !plan.trainable().is_all() {
        let trained = grouped(plan.trainable().count());
        lines.push(format!("frozen: all but {trained} parameters"));
    }
    let passes = data.train.epochs(plan.batches().total_rows(plan.steps()));
    lines.extend(training_lines(data, &passes));
    lines.extend(held_out_lines(plan, &data.held_out));
    lines.push(format!(
        "training: {} of {} on {}",
        counted(plan.steps(), "step"),
        rows_of_steps(plan.batches()),
        match device {
            Device::Cpu => counted(rayon::current_num_threads(), "thread"),
            _ => device_name(device),
        }
    ));
    lines
}

fn model_line(config: &ModelConfig) -> String {
    let trains_sparse = config.attention_method.trains_on(AttentionMode::Sparse);
    let budget =
        if trains_sparse { format!(" at budget {}", config.budget) } else { String::new() };
    format!(
        "model: {}{budget}, {} parameters, {} layers, {} query heads on {} key/value heads",
        config.attention_method,
        grouped(parameter_count(config)),
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
    )
}

fn rows_of_steps(batches: &BatchRamp) -> String {
    match batches.rows(0) {
        rows if rows == batches.full => counted(rows, "row"),
        rows => format!("{} (growing to {})", counted(rows, "row"), batches.full),
    }
}

/// One line per corpus.
fn training_lines(data: &Dataset, passes: &[f64]) -> Vec<String> {
    let shares: Vec<f64> = data.train.shares().collect();
    let line = |(corpus, rows): (usize, &PackedRows)| {
        let share = match shares.len() {
            1 => String::new(),
            _ => format!("{:.1} % of the batches, ", 100.0 * shares[corpus]),
        };
        format!(
            "training text: {}: {share}{} tokens in {} rows of {} ({}, {:.1} % used), {:.2} passes",
            data.names[corpus],
            grouped(rows.valid_tokens()),
            grouped(rows.len() as u64),
            rows.sequence_length(),
            rows.packing(),
            100.0 * rows.utilization(),
            passes[corpus],
        )
    };
    data.train.corpora().enumerate().map(line).collect()
}

/// One line per part, one about how much of it is used, and a warning if there is too little.
fn held_out_lines(plan: &TrainPlan, held_out: &HeldOut) -> Vec<String> {
    let part = |part: &HeldOutPart| {
        format!("held-out text: {}: {} tokens", part.name, grouped(part.total_tokens))
    };
    let mut lines: Vec<String> = held_out.parts.iter().map(part).collect();
    let total = held_out.total_tokens();
    let monitoring = &plan.config().monitoring;
    let partial = [
        ("probes", monitoring.probe_every, monitoring.probe_tokens as u64),
        ("validations", monitoring.validate_every, monitoring.validation_tokens as u64),
        ("results", 1, held_out.tokens()),
    ];
    let partial = partial.into_iter().filter(|&(_, every, tokens)| every > 0 && tokens < total);
    let partial: Vec<_> = partial
        .map(|(who, _, tokens)| format!("{who} use the first {}", grouped(tokens)))
        .collect();
    if !partial.is_empty() {
        lines.push(format!("held-out text: {}", partial.join(", ")));
    }
    if total < MEANINGFUL_TOKENS {
        let total = grouped(total);
        lines.push(format!(
            "warning: {total} held-out tokens are too few to compare losses: their second digit \
             is noise\nhint: hold out more (data.held_out_fraction), or name more held-out text \
             (data.valid_paths or data.valid_corpora)"
        ));
    }
    lines
}
