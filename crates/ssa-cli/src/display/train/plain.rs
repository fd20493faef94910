//! A line per `log_every` steps and per measurement.

use ssa_eval::{Monitored, Probe, Validation};
use ssa_report::number::clock;
use ssa_train::StepMetrics;

use super::super::note;
use super::{Facts, stream};

pub(super) fn show(facts: &Facts, metrics: &StepMetrics, measured: &Monitored) {
    if metrics.step.is_multiple_of(facts.log_every) || metrics.step == facts.steps {
        note(&step_line(facts, metrics));
    }
    let width = facts.steps.to_string().len();
    if let Some(probe) = &measured.probe {
        note(&format!("probe {:>width$}  {}", metrics.step, probe_line(probe)));
    }
    if let Some(validation) = &measured.validation {
        note(&format!("valid {:>width$}  {}", metrics.step, validation_line(validation)));
    }
}

fn step_line(facts: &Facts, metrics: &StepMetrics) -> String {
    let width = facts.steps.to_string().len();
    let mut line =
        format!("step {:>width$}/{}  loss {:.4}", metrics.step, facts.steps, metrics.loss);
    if facts.method.is_aligned() {
        line += &format!(
            "  cross-entropy {:.4} {:8}  alignment {:.5}",
            metrics.cross_entropy,
            format!("({})", stream(metrics)),
            metrics.alignment
        );
    }
    let mfu = Facts::mfu(metrics).map_or_else(String::new, |mfu| format!("  {mfu}"));
    line + &format!("  {}{mfu}  eta {}", facts.speed(), clock(facts.left(metrics.step)))
}

fn probe_line(probe: &Probe) -> String {
    let mut parts = Vec::new();
    for states in &probe.hidden_states {
        let attention = &states.overall;
        let layers: Vec<_> =
            states.layers.iter().map(|layer| format!("{:.3}", layer.attention_sparsity)).collect();
        parts.push(format!(
            "{}: sparsity {:.4} (layers {}), entropy {:.2} bits",
            states.mode,
            attention.attention_sparsity,
            layers.join(" "),
            attention.entropy_bits
        ));
    }
    parts.extend(probe.kl_full_sparse.map(|kl| format!("KL {kl:.4}")));
    parts.push(format!("{:.0} % full stream", 100.0 * probe.full_stream_fraction));
    parts.join("; ")
}

fn validation_line(validation: &Validation) -> String {
    let full = validation
        .full
        .map_or_else(String::new, |loss| format!("{:.4} full, ", loss.bits_per_byte));
    let best = if validation.best { "; the best so far" } else { "" };
    format!("{full}{:.4} sparse bits/byte{best}", validation.sparse.bits_per_byte)
}
