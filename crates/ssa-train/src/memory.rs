//! How much memory a training step takes, estimated before it runs.

use ssa_kernels::Device;
use ssa_kernels::ops::cross_entropy;
use ssa_model::{Method, ModelConfig, parameter_count};

use crate::plan::TrainPlan;
use crate::trainer::STEPS_AHEAD;

/// Bytes of a training step at its fullest, part by part.
///
/// Two moments of a step are the fullest: the beginning of the backward, when all activations are
/// there, and its end, when all gradients are. On a GPU a gradient takes no memory until it is
/// written, so the two never meet.
///
/// On a CPU the peak is that of the whole process. Measured on Linux with configs/demo.toml, with
/// the same model on rows of 16384 tokens (with and without recomputation) and with a model of 22
/// million weights, the largest resident size was 0.9 to 1.05 of the estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Weights that are computed with.
    pub parameters: usize,
    /// Moments, and what completes the weights to `f32`.
    pub optimizer: usize,
    /// Gradients of the weights, all together.
    pub gradients: usize,
    /// What the layers keep between forward and backward.
    pub activations: usize,
    /// Workspace of the layer or the head that is being computed.
    pub working: usize,
    /// Copy of weights and moments that a checkpoint is written from while training goes on; on a
    /// GPU it is host memory and does not count here.
    pub saving: usize,
    /// The program and its text, and what the allocator keeps for later; nothing on a GPU.
    pub overhead: usize,
    /// The sum at the fullest moment.
    pub peak: usize,
}

/// What decides how much memory a step takes.
#[derive(Clone, Copy, Debug)]
pub struct StepShape<'a> {
    /// The model.
    pub model: &'a ModelConfig,
    /// The method, which says what attentions run.
    pub method: Method,
    /// Tokens of a row.
    pub tokens: usize,
    /// Whether layers keep their input only.
    pub recompute: bool,
    /// Whether checkpoints are saved while training goes on.
    pub saves: bool,
}

/// Bytes of the parts that are the same for every micro-batch, and for each of its tokens.
struct Sizes {
    parameters: usize,
    optimizer: usize,
    gradients: usize,
    /// The head's gradient: it is written first.
    head_gradient: usize,
    input_of_layer: usize,
    layer: usize,
    layer_working: usize,
    layers: usize,
}

const F32: usize = 4;

/// An id, a label and whether the token is real.
const BYTES_OF_A_TOKEN: usize = 9;

/// The program on a CPU, with the built-in text and its tokens.
const PROGRAM: usize = 64 << 20;

/// The allocator keeps one of so many bytes that come and go in every step.
const BYTES_PER_KEPT: usize = 6;

/// What a row of a batch takes in addition to its tokens.
const BYTES_OF_A_ROW: usize = 256;

/// No device has as many bytes as this saturates at.
fn sum<const N: usize>(parts: [usize; N]) -> usize {
    parts.into_iter().fold(0, usize::saturating_add)
}

impl Sizes {
    fn new(step: &StepShape<'_>, device: &Device) -> Self {
        let model = step.model;
        let count = parameter_count(model) as usize;
        let element = device.dtype().size();
        // On a GPU the optimizer also keeps the lower halves of the weights.
        let residue = F32 - element;
        let (hidden, feed_forward) = (model.hidden_size, model.intermediate_size);
        let queries = model.num_attention_heads * model.head_dim;
        let keys = model.num_key_value_heads * model.head_dim;
        let attentions = step.method.training_attentions();
        let sizes = model.attention_sizes();
        let attentions_saved: usize =
            attentions.iter().map(|planned| planned.kind.saved_bytes(&sizes, device.dtype())).sum();
        // Input and normed input of both halves, q, k, v, gate and up of the feed-forward layer.
        let kept = 4 * hidden + queries + 2 * keys + 2 * feed_forward;
        // Of both norms, and the gates.
        let statistics = 2 + step.method.training_gates().len() * model.num_attention_heads;
        // The product of gate and up and three gradients of its size, or as many of the queries'
        // size for each attention.
        let feed_forward_working = 4 * feed_forward;
        let attention_working = (2 + 3 * attentions.len()) * queries + 4 * keys;
        let gradients = count * F32;
        Self {
            parameters: count * element,
            optimizer: count * (2 * F32 + residue),
            gradients,
            head_gradient: model.vocab_size * hidden * F32,
            input_of_layer: hidden * element,
            layer: kept * element + statistics * F32 + attentions_saved,
            layer_working: (feed_forward_working.max(attention_working) + 3 * hidden) * element,
            layers: model.num_hidden_layers,
        }
    }
}

impl Sizes {
    fn head_working(&self, step: &StepShape<'_>, tokens: usize, device: &Device) -> usize {
        let workspace = cross_entropy::workspace_bytes(device, tokens, step.model.vocab_size);
        workspace.saturating_add(tokens.saturating_mul(3 * self.input_of_layer))
    }
}

impl MemoryEstimate {
    /// The estimate for micro-batches of `rows` rows.
    pub fn new(step: &StepShape<'_>, rows: usize, device: &Device) -> Self {
        let sizes = Sizes::new(step, device);
        let tokens = rows.saturating_mul(step.tokens);
        let kept = if step.recompute { sizes.input_of_layer } else { sizes.layer };
        let activations = tokens.saturating_mul(kept).saturating_mul(sizes.layers);
        // With recomputation the layer at work is there whole.
        let layer_working = tokens
            .saturating_mul(sizes.layer_working + if step.recompute { sizes.layer } else { 0 });
        let head_working = sizes.head_working(step, tokens, device);
        let working = layer_working.max(head_working);
        let fixed = sizes.parameters + sizes.optimizer;
        let at_the_head = sum([activations, head_working, sizes.head_gradient]);
        let in_the_first_layer = sum([tokens.saturating_mul(kept), layer_working, sizes.gradients]);
        let in_the_last_layer = sum([activations, layer_working, sizes.head_gradient]);
        let on_cpu = matches!(device, Device::Cpu);
        let saving = if on_cpu && step.saves { Self::checkpoint_copy(step.model) } else { 0 };
        let kept = activations.saturating_add(working) / BYTES_PER_KEPT;
        let overhead = if on_cpu { PROGRAM.saturating_add(kept) } else { 0 };
        let peak = if on_cpu {
            // All gradients exist from the beginning. The last step is always saved.
            let always = sum([fixed, sizes.gradients]);
            let in_a_step = sum([activations, working, saving, overhead]);
            let at_the_end = sum([Self::checkpoint_copy(step.model), PROGRAM]);
            always.saturating_add(in_a_step.max(at_the_end))
        } else {
            sum([fixed, at_the_head.max(in_the_first_layer).max(in_the_last_layer)])
        };
        let Sizes { parameters, optimizer, gradients, .. } = sizes;
        Self { parameters, optimizer, gradients, activations, working, saving, overhead, peak }
    }

    /// Bytes of host memory that a checkpoint takes until it is written: weights and moments.
    pub fn checkpoint_copy(model: &ModelConfig) -> usize {
        (parameter_count(model) as usize).saturating_mul(3 * F32)
    }

    /// Bytes of host memory that the batches of a run take: those of the step at hand, and those
    /// that are read ahead.
    pub fn batches(plan: &TrainPlan) -> usize {
        let rows = plan.batches().full.saturating_mul(1 + STEPS_AHEAD);
        rows.saturating_mul(plan.sequence_length() * BYTES_OF_A_TOKEN + BYTES_OF_A_ROW)
    }

    /// Bytes that a forward over `tokens` tokens takes in addition to the weights.
    pub fn inference(model: &ModelConfig, tokens: usize, device: &Device) -> usize {
        let method = model.attention_method;
        let step = StepShape { model, method, tokens, recompute: true, saves: false };
        let sizes = Sizes::new(&step, device);
        let layer = tokens.saturating_mul(sizes.layer_working + sizes.layer);
        layer.max(sizes.head_working(&step, tokens, device))
    }

    /// The largest micro-batch whose peak stays within `budget` bytes; 0 if not even one row does.
    pub fn largest_micro_batch(step: &StepShape<'_>, budget: usize, device: &Device) -> usize {
        let fits = |rows: usize| Self::new(step, rows, device).peak <= budget;
        let mut too_many = 1;
        while fits(too_many) && too_many < 1 << 20 {
            too_many *= 2;
        }
        // The peak only grows with the rows.
        let (mut fitting, mut too_many) = (too_many / 2, too_many);
        while fitting + 1 < too_many {
            let middle = fitting.midpoint(too_many);
            if fits(middle) { fitting = middle } else { too_many = middle }
        }
        fitting
    }
}

#[cfg(test)]
mod tests {
    use ssa_model::ModelSettings;

    use super::*;

    const GB: usize = 1_000_000_000;

    fn model() -> ModelConfig {
        ModelConfig::new(ModelSettings::ssa_1b()).unwrap()
    }

    #[test]
    fn a_cpu_holds_four_copies_of_the_weights() {
        let model = model();
        let step = StepShape {
            model: &model,
            method: Method::SSA,
            tokens: 8192,
            recompute: false,
            saves: true,
        };
        let estimate = MemoryEstimate::new(&step, 1, &Device::Cpu);
        let weights = estimate.parameters;
        assert_eq!((estimate.optimizer, estimate.gradients), (2 * weights, weights));
        assert!(weights > 4 * GB && weights < 5 * GB, "{weights}");
        assert!(estimate.peak > 4 * weights + estimate.activations);
        assert_eq!(estimate.saving, 3 * weights);
    }

    #[test]
    fn recomputation_and_fewer_rows_take_less() {
        let model = model();
        let at = |recompute, rows| {
            let step = StepShape {
                model: &model,
                method: Method::SSA,
                tokens: 8192,
                recompute,
                saves: true,
            };
            MemoryEstimate::new(&step, rows, &Device::Cpu)
        };
        assert!(at(true, 8).peak < at(false, 8).peak / 2);
        assert!(at(true, 8).activations * 8 < at(false, 8).activations);
        assert!(at(false, 1).peak < at(false, 2).peak);
    }

    #[test]
    fn the_largest_micro_batch_just_fits() {
        let model = model();
        for &method in Method::ALL {
            let step =
                StepShape { model: &model, method, tokens: 8192, recompute: true, saves: true };
            let budget = 80 * GB;
            let rows = MemoryEstimate::largest_micro_batch(&step, budget, &Device::Cpu);
            assert!(rows > 0, "{method}");
            assert!(MemoryEstimate::new(&step, rows, &Device::Cpu).peak <= budget);
            assert!(MemoryEstimate::new(&step, rows + 1, &Device::Cpu).peak > budget);
            assert_eq!(MemoryEstimate::largest_micro_batch(&step, GB, &Device::Cpu), 0);
        }
    }
}
