//! The metrics of a step.

use serde::{Deserialize, Deserializer, Serialize};

use crate::Measurements;

/// The metrics of one optimizer step. JSON has no NaN and no infinity: both are written as `null`,
/// which is read as NaN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// The step, counted from 1.
    pub step: usize,
    /// The minimized loss: cross-entropy + effective alpha * alignment + weight * z-loss.
    #[serde(deserialize_with = "float")]
    pub loss: f64,
    /// Mean over the targets of the step, in nats.
    #[serde(deserialize_with = "float")]
    pub cross_entropy: f64,
    /// Mean over layers, tokens, heads and dimensions, before the weight alpha; 0 for methods
    /// without alignment.
    #[serde(deserialize_with = "float")]
    pub alignment: f64,
    /// The alignment of each layer in order; their mean is `alignment`.
    #[serde(deserialize_with = "floats")]
    pub alignment_per_layer: Vec<f64>,
    /// Mean over the targets of the squared log-partition function of the softmax, before its
    /// weight.
    #[serde(deserialize_with = "float")]
    pub z_loss: f64,
    /// The actual factor of the mean alignment loss in the gradient. It equals the configured alpha
    /// for any number of micro-batches; 0 for methods without alignment.
    #[serde(deserialize_with = "float")]
    pub effective_alpha: f64,
    /// Learning rate of the step.
    #[serde(deserialize_with = "float")]
    pub learning_rate: f64,
    /// L2 norm of the gradient of all weights, before clipping.
    #[serde(deserialize_with = "float")]
    pub grad_norm: f64,
    /// Fraction of micro-batches and layers whose stream is full attention: 0 or 1 unless the draw
    /// is finer than a step.
    #[serde(rename = "full_streams", deserialize_with = "float")]
    pub full_stream_fraction: f64,
    /// Number of steps so far with a non-finite loss or gradient. Their rows were skipped, and the
    /// weights did not change.
    pub skipped_steps: u64,
    /// Tokens of the step, padding excluded.
    pub tokens: usize,
    /// Wall-clock time of the step in seconds.
    #[serde(deserialize_with = "float")]
    pub seconds: f64,
    /// The part of `seconds` in which each rank computed its gradient, without waiting for the
    /// others; absent for a single process.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "floats")]
    pub rank_seconds: Vec<f64>,
    /// The part of `seconds` in which each rank, its gradient computed, waited until the last one
    /// had its own; absent for a single process.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "floats")]
    pub rank_wait_seconds: Vec<f64>,
    /// The ranks that computed more than 1.2 times as long as the median rank in the last 20 steps
    /// of this process; absent if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slow_ranks: Vec<usize>,
    /// The part of `seconds` in which rank 0 got the gradients of all ranks, added its pieces, and
    /// compared norms and losses; absent for a single process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce_seconds: Option<f64>,
    /// The part of `seconds` in which rank 0 updated its pieces of the weights and got all others;
    /// absent for a single process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_seconds: Option<f64>,
    /// `tokens / seconds`.
    #[serde(deserialize_with = "float")]
    pub tokens_per_second: f64,
    /// Floating-point operations of the step (by formula) over `seconds`, in 10^12 per second.
    #[serde(deserialize_with = "float")]
    pub tflops: f64,
    /// Model FLOPs utilization: `tflops` over `monitoring.peak_tflops`, if that is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Rows drawn so far over all rows: the number of passes over the training text if it is one
    /// corpus.
    #[serde(deserialize_with = "float")]
    pub epoch: f64,
    /// Passes over each of `data.corpora` completed after the step, in their order; the text of a
    /// run without them counts as one corpus.
    #[serde(deserialize_with = "floats")]
    pub corpus_epochs: Vec<f64>,
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedStep {
    /// The metrics of the step.
    #[serde(flatten)]
    pub metrics: StepMetrics,
    /// The measurements after it.
    #[serde(flatten)]
    pub measured: Measurements,
}

/// A number, or `null` for one that was not finite.
fn float<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn floats<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let numbers = Vec::<Option<f64>>::deserialize(deserializer)?;
    Ok(numbers.into_iter().map(|number| number.unwrap_or(f64::NAN)).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Metrics without those that depend on time and on the number of ranks.
    pub(crate) fn timeless(metrics: StepMetrics) -> StepMetrics {
        StepMetrics {
            seconds: 0.0,
            rank_seconds: vec![],
            rank_wait_seconds: vec![],
            slow_ranks: vec![],
            reduce_seconds: None,
            update_seconds: None,
            tokens_per_second: 0.0,
            tflops: 0.0,
            ..metrics
        }
    }

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
            rank_seconds: vec![],
            rank_wait_seconds: vec![],
            slow_ranks: vec![],
            reduce_seconds: None,
            update_seconds: None,
            seconds: 2.0,
            tokens_per_second: 4096.0,
            tflops: 0.5,
            mfu: Some(0.25),
            epoch: 0.25,
            corpus_epochs: vec![0.25],
        }
    }
}
