//! The names under which TensorBoard shows the numbers of a run. What stands before the first slash
//! is a group.

use crate::measurements::{Measurements, Probe, ProbedAttention, Validation};
use crate::metrics::StepMetrics;

/// The numbers of a step.
pub(super) fn step_scalars(metrics: &StepMetrics) -> Vec<(String, f64)> {
    let mut scalars = Vec::from([
        ("train/loss", metrics.loss),
        ("train/cross_entropy", metrics.cross_entropy),
        ("train/alignment", metrics.alignment),
        ("train/effective_alpha", metrics.effective_alpha),
        ("train/full_streams", metrics.full_streams),
        ("train/z_loss", metrics.z_loss),
        ("train/skipped_steps", metrics.skipped_steps as f64),
        ("optimizer/learning_rate", metrics.learning_rate),
        ("optimizer/grad_norm", metrics.grad_norm),
        ("speed/tokens_per_second", metrics.tokens_per_second),
        ("speed/tokens_per_step", metrics.tokens as f64),
        ("speed/tflops", metrics.tflops),
        ("speed/epoch", metrics.epoch),
    ])
    .into_iter()
    .map(|(tag, value)| (tag.to_owned(), value))
    .collect::<Vec<_>>();
    scalars.extend(metrics.mfu.map(|mfu| ("speed/mfu".to_owned(), mfu)));
    if let [_, _, ..] = metrics.corpus_epochs[..] {
        let epochs = metrics.corpus_epochs.iter().enumerate();
        scalars.extend(
            epochs.map(|(corpus, &passes)| (format!("data_epochs/corpus_{corpus:02}"), passes)),
        );
    }
    let layers = metrics.alignment_per_layer.iter().enumerate();
    scalars.extend(
        layers.map(|(layer, &value)| (format!("train_alignment/{}", layer_name(layer)), value)),
    );
    scalars
}

/// The numbers measured after a step.
pub(super) fn measured_scalars(measured: &Measurements) -> Vec<(String, f64)> {
    let probe = measured.probe.iter().flat_map(probe_scalars);
    probe.chain(measured.validation.iter().flat_map(validation_scalars)).collect()
}

fn probe_scalars(probe: &Probe) -> Vec<(String, f64)> {
    let mut scalars = vec![("probe/full_streams".to_owned(), probe.full_streams)];
    scalars.extend(probe.kl_full_sparse.map(|kl| ("probe/kl_full_sparse".to_owned(), kl)));
    for states in &probe.hidden_states {
        let mode = states.mode;
        for (name, value) in attention_scalars(&states.overall) {
            scalars.push((format!("probe/{name}/{mode}"), value));
        }
        for (layer, attention) in states.layers.iter().enumerate() {
            for (name, value) in attention_scalars(attention) {
                scalars.push((format!("probe_{name}/{}/{mode}", layer_name(layer)), value));
            }
        }
    }
    scalars
}

fn attention_scalars(attention: &ProbedAttention) -> [(&'static str, f64); 3] {
    [
        ("attention_sparsity", attention.attention_sparsity),
        ("entropy_bits", attention.entropy_bits),
        ("distance", attention.distance),
    ]
}

fn validation_scalars(validation: &Validation) -> Vec<(String, f64)> {
    let losses = [("full", validation.full), ("sparse", Some(validation.sparse))];
    let losses = losses.into_iter().filter_map(|(mode, loss)| Some((mode, loss?)));
    let scalars = losses.flat_map(|(mode, loss)| {
        [
            (format!("validation/bits_per_byte/{mode}"), loss.bits_per_byte),
            (format!("validation/nats_per_token/{mode}"), loss.nats_per_token),
        ]
    });
    let kl = validation.kl_full_sparse.map(|kl| ("validation/kl_full_sparse".to_owned(), kl));
    scalars.chain(kl).collect()
}

/// With leading zeros, so that layers are listed in order.
fn layer_name(layer: usize) -> String {
    format!("layer_{layer:02}")
}
