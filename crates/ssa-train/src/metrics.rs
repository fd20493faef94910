//! What a step reports.

use serde::{Deserialize, Serialize};

use crate::Measurements;

/// The metrics of one optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// The step, counted from 1.
    pub step: usize,
    /// What was minimized: cross-entropy + effective alpha * alignment + weight * z-loss.
    pub loss: f64,
    /// Mean over the targets of the step, in nats.
    pub cross_entropy: f64,
    /// Mean over layers, tokens, heads and dimensions, before the factor alpha; 0 for methods
    /// without it.
    pub alignment: f64,
    /// The alignment of each layer, the first layer first; their mean is `alignment`.
    pub alignment_per_layer: Vec<f64>,
    /// Mean over the targets of the squared logarithm of the softmax's normalizer, before its
    /// weight.
    pub z_loss: f64,
    /// The factor by which the mean alignment loss really entered the gradient. It equals the
    /// configured alpha whatever the number of micro-batches; 0 for methods without alignment.
    pub effective_alpha: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// L2 norm of the gradient of all weights, before clipping.
    pub grad_norm: f64,
    /// Fraction of micro-batches and layers that ran on full attention: 0 or 1 unless the draw is
    /// finer than a step.
    #[serde(rename = "full_streams")]
    pub full_stream_fraction: f64,
    /// Steps so far with a loss or gradient that was not finite. Their rows were skipped, and the
    /// weights stayed as they were.
    pub skipped_steps: u64,
    /// Tokens of the step, padding excluded.
    pub tokens: usize,
    /// Wall-clock time of the step in seconds.
    pub seconds: f64,
    /// `tokens / seconds`.
    pub tokens_per_second: f64,
    /// Floating-point operations of the step by its formulas over `seconds`, in 10^12 per second.
    pub tflops: f64,
    /// Model FLOPs utilization: `tflops` over `monitoring.peak_tflops`, if that is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Rows drawn so far over all rows: the passes over the training text if it is one corpus.
    pub epoch: f64,
    /// Passes over each of `data.corpora` completed after the step, in their order; the text of a
    /// run without them counts as one corpus.
    pub corpus_epochs: Vec<f64>,
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedStep {
    /// What the step reported.
    #[serde(flatten)]
    pub metrics: StepMetrics,
    /// What was measured after it.
    #[serde(flatten)]
    pub measured: Measurements,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn step(step: usize) -> StepMetrics {
        StepMetrics {
            step,
            loss: 5.5,
            cross_entropy: 5.0,
            alignment: 0.05,
            alignment_per_layer: vec![0.04, 0.06],
            z_loss: 30.0,
            effective_alpha: 10.0,
            learning_rate: 1e-3,
            grad_norm: 1.5,
            full_stream_fraction: 1.0,
            skipped_steps: 0,
            tokens: 8192,
            seconds: 2.0,
            tokens_per_second: 4096.0,
            tflops: 0.5,
            mfu: Some(0.25),
            epoch: 0.25,
            corpus_epochs: vec![0.25],
        }
    }
}
