//! What a run is about to do, in words.

use ssa_kernels::Device;
use ssa_train::{BatchRamp, RunData, RunDir, Trainer};

use crate::display::note;

/// Says what is about to happen.
pub(super) fn describe(trainer: &Trainer, data: &RunData, run_dir: &RunDir) {
    let (plan, model) = (trainer.plan(), trainer.model());
    let config = model.config();
    note(&format!(
        "{}: {} parameters, {} layers, {} query heads on {}, blocks {}",
        config.attention_method,
        model.parameters().count(),
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.budget,
    ));
    describe_data(data);
    note(&format!(
        "{} steps of {} rows on {}; run directory {}",
        plan.steps(),
        rows_of_steps(plan.batches()),
        place(&model.device()),
        run_dir.path().display()
    ));
    if trainer.done() > 0 {
        note(&format!("continuing after step {}", trainer.done()));
    }
}

/// Where a run computes, in words.
pub(super) fn place(device: &Device) -> String {
    match device {
        Device::Cuda(gpu) => format!("{device} ({})", gpu.properties().name),
        _ => format!("{} threads", rayon::current_num_threads()),
    }
}

fn rows_of_steps(batches: &BatchRamp) -> String {
    match batches.rows(0) {
        rows if rows == batches.full => rows.to_string(),
        rows => format!("{rows}, growing to {}", batches.full),
    }
}

/// One line for each corpus, one for what is held out.
fn describe_data(data: &RunData) {
    let shares = data.train.shares();
    for ((rows, name), share) in data.train.corpora().zip(&data.names).zip(shares) {
        let mixed = if data.names.len() > 1 {
            format!("{:.1} % of the rows, ", 100.0 * share)
        } else {
            String::new()
        };
        note(&format!(
            "{name}: {mixed}{} rows of {} tokens ({}, {:.1} % used)",
            rows.len(),
            rows.sequence_length(),
            rows.packing(),
            100.0 * rows.utilisation(),
        ));
    }
    for part in &data.held_out.parts {
        note(&format!("{}: {} tokens to evaluate on", part.name, part.rows.valid_tokens()));
    }
}
