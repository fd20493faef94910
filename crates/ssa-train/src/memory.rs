//! Estimate of the memory of a training step, before it runs.

use ssa_kernels::DeviceKind;
use ssa_kernels::ops::cross_entropy;
use ssa_model::{Method, ModelConfig, parameter_count};

use crate::plan::TrainPlan;
use crate::trainer::{BUCKET, STEPS_AHEAD};

/// Peak memory of a training step in bytes, by part.
///
/// A step peaks at the start of the backward pass, with all activations, or at its end, with all
/// gradients. On a GPU a gradient takes no memory until it is written, so the two never coincide.
///
/// On a CPU, the peak is that of the whole process. Measured on Linux with configs/demo.toml (all
/// methods, 4 to 96 rows at once), with the same model on rows of 4096 and 16384 tokens, with one
/// of 256 hidden units, and with one of 22 million weights, the largest resident size was 0.85 to
/// 1.05 of the estimate; once, for a small run, 19 MiB more than the 119 MiB of the estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Weights in the compute dtype.
    pub parameters: usize,
    /// Moments of the rank's pieces, and the lower halves of the `f32` master weights.
    pub optimizer: usize,
    /// Gradients of all weights, one for each level of the tree of the rank's groups.
    pub gradients: usize,
    /// The rank's pieces of the summed gradient, and the addends of other ranks. On a GPU these
    /// take the place of gradients that have been added, except two buckets of addends, for which
    /// activations have made room.
    pub exchange: usize,
    /// Activations that the layers save between forward and backward.
    pub activations: usize,
    /// Workspace of the current layer or head.
    pub working: usize,
    /// The copy of weights and moments that a checkpoint is written from during training. On a GPU
    /// it is in host memory and does not count here.
    pub saving: usize,
    /// The program with its built-in text, and memory that the allocator retains; 0 on a GPU.
    pub overhead: usize,
    /// The total at the peak.
    pub peak: usize,
}

/// What determines the memory of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepShape<'a> {
    /// The model.
    pub model: &'a ModelConfig,
    /// The attention method.
    pub method: Method,
    /// Number of trained parameters: those with gradients and moments.
    pub trained: u64,
    /// Tokens per row.
    pub tokens: usize,
    /// Whether layers save only their input.
    pub recompute: bool,
    /// Whether checkpoints are saved while training goes on.
    pub saves: bool,
    /// Groups of micro-batches of the run.
    pub groups: usize,
    /// Number of ranks, which divides `groups`.
    pub ranks: usize,
}

/// Fixed bytes per micro-batch, and bytes per token.
struct Sizes {
    parameters: usize,
    optimizer: usize,
    gradients: usize,
    exchange: usize,
    /// The gradient of the head, which is written first.
    head_gradient: usize,
    input_of_layer: usize,
    layer: usize,
    layer_working: usize,
    layers: usize,
    some_frozen: bool,
}

const F32: usize = 4;

/// A token ID, a label and the padding mask.
const BYTES_OF_A_TOKEN: usize = 9;

/// The program on a CPU, with the built-in text and its tokens.
const PROGRAM: usize = 64 << 20;

/// The allocator retains one of this many bytes that every step allocates and frees.
const BYTES_PER_KEPT: usize = 6;

/// Bytes of a row besides its tokens.
const BYTES_OF_A_ROW: usize = 256;

/// Adds with saturation: no device has that much memory.
fn sum<const N: usize>(parts: [usize; N]) -> usize {
    parts.into_iter().fold(0, usize::saturating_add)
}

impl Sizes {
    fn new(step: &StepShape<'_>, device: DeviceKind) -> Self {
        let model = step.model;
        let count = parameter_count(model) as usize;
        let trained = step.trained as usize;
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
        // Input and normed input of both halves; q, k, v; gate and up of the feed-forward layer; q
        // and k before the norm of their heads.
        let before_norm = if model.qk_norm { queries + keys } else { 0 };
        let kept = 4 * hidden + queries + 2 * keys + before_norm + 2 * feed_forward;
        // The inverse RMS of all norms, and the gates.
        let heads = model.num_attention_heads;
        let norms = if model.qk_norm { 2 + heads + model.num_key_value_heads } else { 2 };
        let gates = if model.gated { step.method.training_gates().len() } else { 0 };
        let statistics = norms + gates * heads;
        // The product of gate and up and three gradients of its size, or as many of the size of q
        // for each attention.
        let feed_forward_working = 4 * feed_forward;
        let attention_working = (2 + 3 * attentions.len()) * queries + 4 * keys;
        let ranks = step.ranks.max(1);
        let levels = 1 + (step.groups / ranks).max(1).ilog2() as usize;
        let gradients = trained * F32;
        let bucket = trained.min(BUCKET.max(model.vocab_size * hidden)) * F32;
        let exchange = match (ranks, device) {
            (1, _) => 0,
            (_, DeviceKind::Cpu) => gradients.div_ceil(ranks) + bucket,
            // All buckets but the largest have about the same size.
            _ => (bucket + BUCKET * F32) / ranks * (ranks - 1),
        };
        Self {
            parameters: count * element,
            optimizer: (trained * 2 * F32 + count * residue).div_ceil(ranks),
            gradients: gradients.saturating_mul(levels),
            exchange,
            head_gradient: model.vocab_size * hidden * F32,
            input_of_layer: hidden * element,
            layer: kept * element + statistics * F32 + attentions_saved,
            layer_working: (feed_forward_working.max(attention_working) + 3 * hidden) * element,
            layers: model.num_hidden_layers,
            some_frozen: trained < count,
        }
    }
}

impl Sizes {
    fn head_working(&self, step: &StepShape<'_>, tokens: usize, device: DeviceKind) -> usize {
        let workspace = cross_entropy::workspace_bytes(device, tokens, step.model.vocab_size);
        workspace.saturating_add(tokens.saturating_mul(3 * self.input_of_layer))
    }
}

impl MemoryEstimate {
    /// Estimates the memory for micro-batches of `rows` rows.
    pub fn new(step: &StepShape<'_>, rows: usize, device: DeviceKind) -> Self {
        let sizes = Sizes::new(step, device);
        let tokens = rows.saturating_mul(step.tokens);
        let kept = if step.recompute { sizes.input_of_layer } else { sizes.layer };
        let activations = tokens.saturating_mul(kept).saturating_mul(sizes.layers);
        // With recomputation, all activations of the current layer exist.
        let layer_working = tokens
            .saturating_mul(sizes.layer_working + if step.recompute { sizes.layer } else { 0 });
        let head_working = sizes.head_working(step, tokens, device);
        // The head's gradient is computed along with the others, and dropped if the head is frozen.
        let dropped = if sizes.some_frozen { sizes.head_gradient } else { 0 };
        let working = layer_working.max(head_working.saturating_add(dropped));
        let on_cpu = device == DeviceKind::Cpu;
        let fixed = sum([sizes.parameters, sizes.optimizer]);
        let at_the_head = sum([activations, head_working, sizes.head_gradient]);
        let in_the_first_layer = sum([tokens.saturating_mul(kept), layer_working, sizes.gradients]);
        let in_the_last_layer = sum([activations, layer_working, sizes.head_gradient]);
        let saving = if on_cpu && step.saves { Self::checkpoint_copy(step) } else { 0 };
        let kept = activations.saturating_add(working) / BYTES_PER_KEPT;
        let overhead = if on_cpu { PROGRAM.saturating_add(kept) } else { 0 };
        let peak = if on_cpu {
            // All gradients exist from the start. The last step is always saved.
            let always = sum([fixed, sizes.exchange, sizes.gradients]);
            let in_a_step = sum([activations, working, saving, overhead]);
            let at_the_end = sum([Self::checkpoint_copy(step), PROGRAM]);
            always.saturating_add(in_a_step.max(at_the_end))
        } else {
            let in_the_exchange = sum([sizes.gradients, sizes.exchange]);
            let backward = at_the_head.max(in_the_first_layer).max(in_the_last_layer);
            sum([fixed, backward.max(in_the_exchange)])
        };
        let Sizes { parameters, optimizer, gradients, exchange, .. } = sizes;
        Self {
            parameters,
            optimizer,
            gradients,
            exchange,
            activations,
            working,
            saving,
            overhead,
            peak,
        }
    }

    /// Bytes of host memory that a checkpoint takes until it is written: weights and moments.
    pub fn checkpoint_copy(step: &StepShape<'_>) -> usize {
        let values = parameter_count(step.model).saturating_add(step.trained.saturating_mul(2));
        (values as usize).saturating_mul(F32)
    }

    /// Bytes of host memory for batches: those of the current step and the prefetched ones.
    pub fn batches(plan: &TrainPlan) -> usize {
        let rows = plan.batches().full.saturating_mul(1 + STEPS_AHEAD);
        rows.saturating_mul(plan.sequence_length() * BYTES_OF_A_TOKEN + BYTES_OF_A_ROW)
    }

    /// Bytes of a forward pass over `tokens` tokens, besides the weights.
    pub fn inference(model: &ModelConfig, tokens: usize, device: DeviceKind) -> usize {
        let method = model.attention_method;
        let (trained, recompute, saves) = (0, true, false);
        let (groups, ranks) = (1, 1);
        let step = StepShape { model, method, trained, tokens, recompute, saves, groups, ranks };
        let sizes = Sizes::new(&step, device);
        let layer = tokens.saturating_mul(sizes.layer_working + sizes.layer);
        layer.max(sizes.head_working(&step, tokens, device))
    }

    /// The largest micro-batch whose peak is at most `budget` bytes; 0 if one row already exceeds
    /// it.
    pub fn largest_micro_batch(step: &StepShape<'_>, budget: usize, device: DeviceKind) -> usize {
        let fits = |rows: usize| Self::new(step, rows, device).peak <= budget;
        let mut too_many = 1;
        while fits(too_many) && too_many < 1 << 20 {
            too_many *= 2;
        }
        // The peak increases with the number of rows.
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

    fn step(model: &ModelConfig, method: Method, recompute: bool) -> StepShape<'_> {
        let (trained, saves) = (parameter_count(model), true);
        let (tokens, groups, ranks) = (8192, 1, 1);
        StepShape { model, method, trained, tokens, recompute, saves, groups, ranks }
    }

    #[test]
    fn frozen_weights_have_neither_gradients_nor_moments() {
        let model = model();
        let all = step(&model, Method::SSA, true);
        let estimate =
            |trained| MemoryEstimate::new(&StepShape { trained, ..all }, 1, DeviceKind::Cpu);
        let (whole, part) = (estimate(all.trained), estimate(1000));
        assert_eq!((part.gradients, part.optimizer), (4000, 8000));
        assert_eq!(part.parameters, whole.parameters);
        assert!(part.peak < whole.peak / 2, "{part:?}, {whole:?}");
    }

    #[test]
    fn a_cpu_holds_four_copies_of_the_weights() {
        let model = model();
        let step = step(&model, Method::SSA, false);
        let estimate = MemoryEstimate::new(&step, 1, DeviceKind::Cpu);
        let weights = estimate.parameters;
        assert_eq!((estimate.optimizer, estimate.gradients), (2 * weights, weights));
        assert!(weights > 4 * GB && weights < 5 * GB, "{weights}");
        assert!(estimate.peak > 4 * weights + estimate.activations);
        assert_eq!(estimate.saving, 3 * weights);
    }

    #[test]
    fn ranks_share_the_moments_and_groups_take_gradients() {
        let model = model();
        let at = |groups, ranks| {
            let step = StepShape { groups, ranks, ..step(&model, Method::SSA, false) };
            MemoryEstimate::new(&step, 1, DeviceKind::Cpu)
        };
        let alone = at(1, 1);
        assert_eq!((alone.exchange, at(8, 1).gradients), (0, 4 * alone.gradients));
        let shared = at(8, 4);
        assert_eq!(shared.gradients, 2 * alone.gradients);
        assert_eq!(shared.optimizer, alone.optimizer.div_ceil(4));
        assert!(shared.exchange > alone.gradients / 4 && shared.exchange < alone.gradients);
        assert!(at(8, 8).peak < at(8, 1).peak);
    }

    #[test]
    fn recomputation_and_fewer_rows_take_less() {
        let model = model();
        let at = |recompute, rows| {
            let step = step(&model, Method::SSA, recompute);
            MemoryEstimate::new(&step, rows, DeviceKind::Cpu)
        };
        assert!(at(true, 8).peak < at(false, 8).peak / 2);
        assert!(at(true, 8).activations * 8 < at(false, 8).activations);
        assert!(at(false, 1).peak < at(false, 2).peak);
    }

    #[test]
    fn the_largest_micro_batch_just_fits() {
        let model = model();
        for &method in Method::ALL {
            let step = step(&model, method, true);
            let budget = 80 * GB;
            let rows = MemoryEstimate::largest_micro_batch(&step, budget, DeviceKind::Cpu);
            assert!(rows > 0, "{method}");
            assert!(MemoryEstimate::new(&step, rows, DeviceKind::Cpu).peak <= budget);
            assert!(MemoryEstimate::new(&step, rows + 1, DeviceKind::Cpu).peak > budget);
            assert_eq!(MemoryEstimate::largest_micro_batch(&step, GB, DeviceKind::Cpu), 0);
        }
    }
}
