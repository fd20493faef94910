//! The sections and keys of a training configuration, with their defaults.
//!
//! The documentation comments become the reference page: they say what a key means, its unit, and
//! the behavior if an optional key is absent.

use std::path::PathBuf;

use ssa_data::{HELD_OUT_FRACTION, Packing};
use ssa_kernels::ops::attention::alignment::{AlignmentDirection, AlignmentKind};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{DocumentMasking, Method, SparseBudget};

use super::MonitoringSection;
use super::schema::section;
use super::weighted_corpus::WeightedCorpus;
use crate::optimizer::DecayedWeights;
use crate::schedule::ScheduleShape;
use crate::stream::StreamScope;

section! {
    /// Everything a training run depends on. An empty file is valid: it trains the small default
    /// model on the embedded text.
    pub struct TrainConfig {
        /// Name and seed of the run.
        pub run: RunSection = RunSection::default(),
        /// Size and shape of the model. The names are those of a Hugging Face `config.json`.
        pub model: ModelSection = ModelSection::default(),
        /// Text to train on and to hold out.
        pub data: DataSection = DataSection::default(),
        /// The training objective and its attention method.
        pub objective: ObjectiveSection = ObjectiveSection::default(),
        /// Number of steps and batch size.
        pub training: TrainingSection = TrainingSection::default(),
        /// AdamW, gradient clipping and learning rate.
        pub optimizer: OptimizerSection = OptimizerSection::default(),
        /// When to save checkpoints for resuming, and which ones to keep. A checkpoint holds
        /// weights and optimizer moments: three times the size of the model.
        pub checkpoint: CheckpointSection = CheckpointSection::default(),
        /// What the evaluation after training measures. Full attention is always included if the
        /// method has it.
        pub evaluation: EvaluationSection = EvaluationSection::default(),
        /// What is measured and written during training. Probes and validation always use the same
        /// held-out rows and do not affect training.
        pub monitoring: MonitoringSection = MonitoringSection::default(),
    }
}

section! {
    /// Name and seed of the run.
    pub struct RunSection {
        /// Start of the name of the run directory: letters, digits, `-`, `_` and `.`.
        pub name: String = "ssa".to_owned(),
        /// Seed of the initial weights, the held-out text, the order of the data and the stream
        /// draw. The same seed gives the same run.
        pub seed: u64 = 0,
    }
}

section! {
    /// Size and shape of the model.
    pub struct ModelSection {
        /// Model with the initial weights, for retrofits and for continued training with a longer
        /// context, a different budget or a different method: a checkpoint directory, a run
        /// directory, or a model of the Hugging Face Hub (`OWNER/NAME[@REVISION]`, also with
        /// `hf://` in front). Keys of this section that are not set have the values of that model.
        /// If they are set, `max_position_embeddings`, `rope_scaling`, `block_size`, `block_counts`
        /// and `window_size` may differ from the model's, all other keys must match. Absent: random
        /// weights.
        pub init_from: Option<PathBuf> = None,
        /// Vocabulary size, at least that of the tokenizer and at most 16777216; larger to match a
        /// padded checkpoint, for example. Absent: the size of the tokenizer's vocabulary.
        pub vocab_size: Option<usize> = None,
        /// Width of the residual stream, at most 1048576.
        pub hidden_size: usize = 128,
        /// Width of the feed-forward layer, at most 1048576.
        pub intermediate_size: usize = 384,
        /// Number of layers, at most 4096.
        pub num_hidden_layers: usize = 4,
        /// Number of query heads, a multiple of `num_key_value_heads` and at most 4096.
        pub num_attention_heads: usize = 8,
        /// Number of key/value heads. Query heads that share one also share the selected blocks.
        pub num_key_value_heads: usize = 1,
        /// Dimensions of a head, an even number of at most 4096. Heads need not add up to
        /// `hidden_size`.
        pub head_dim: usize = 32,
        /// Maximum document length in tokens, in training and at inference; at most 2147483648.
        /// Absent: `data.sequence_length`, or the value of `init_from` if that is larger.
        pub max_position_embeddings: Option<usize> = None,
        /// Base of the rotary position embedding.
        pub rope_theta: f64 = 500_000.0,
        /// Added to the mean square in RMSNorm.
        pub rms_norm_eps: f64 = 1e-5,
        /// Standard deviation of the initial weights, at most 1000000; norm weights start at 1.
        pub initializer_range: f64 = 0.02,
        /// Whether the output layer shares the embedding matrix.
        pub tie_word_embeddings: bool = true,
        /// Whether attention outputs are multiplied by gates (`self_attn.g_proj`). Methods `nsa`
        /// and `ssa` need them; `ssa convert` adds them to a plain model.
        pub gated: bool = true,
        /// Whether q, k and v have biases, as in Qwen2.
        pub qkv_bias: bool = false,
        /// Whether the heads of q and k are normalized before the rotary position embedding, as in
        /// Qwen3.
        pub qk_norm: bool = false,
        /// Tokens per block of sparse attention, at most 1048576. With `objective.selection =
        /// "reference"` a power of two.
        pub block_size: usize = 16,
        /// Blocks that a query attends to in training, its own included; at most 1048576. With
        /// `objective.selection = "reference"` a power of two of at most `block_size`.
        pub block_counts: usize = 4,
        /// Tokens of the sliding window, the query included (method `nsa` only); at most
        /// 2147483648.
        pub window_size: usize = 128,
        /// Scaling of the rotary position embedding for longer contexts. Absent: none.
        pub rope_scaling: Option<RopeScalingSection> = None,
    }
}

/// How the rotary position embedding is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeType {
    /// Long wavelengths are stretched, short ones are kept.
    Llama3,
    /// All wavelengths are stretched.
    Linear,
    /// As `Llama3`, by other rules, and queries and keys are multiplied by a factor.
    Yarn,
}

ssa_names::names!(RopeType: "scaling of the rotary position embedding" {
    Llama3 = "llama3",
    Linear = "linear",
    Yarn = "yarn",
});

section! {
    /// Scaling of the rotary position embedding.
    pub struct RopeScalingSection {
        /// `llama3` keeps short wavelengths and uses `low_freq_factor` and `high_freq_factor`;
        /// `yarn` keeps them too and uses `beta_fast`, `beta_slow`, `truncate` and
        /// `attention_factor`; `linear` scales all wavelengths and uses only `factor`.
        pub rope_type: RopeType = RopeType::Llama3,
        /// Factor by which the context grows.
        pub factor: f64 = 4.0,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` tokens are scaled
        /// by the full factor.
        pub low_freq_factor: f64 = 1.0,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` tokens stay
        /// unchanged; between the two bounds the scaling is interpolated.
        pub high_freq_factor: f64 = 4.0,
        /// Context length of the original training, in tokens; at most 2147483648.
        pub original_max_position_embeddings: usize = 8192,
        /// Pairs of dimensions that turn more often than this within
        /// `original_max_position_embeddings` tokens stay unchanged.
        pub beta_fast: f64 = 32.0,
        /// Pairs of dimensions that turn less often than this are scaled by the full factor.
        pub beta_slow: f64 = 1.0,
        /// Whether the bounds between pairs are rounded outward to whole pairs.
        pub truncate: bool = true,
        /// Factor of queries and keys after the rotation. Absent: `0.1 ln(factor) + 1`.
        pub attention_factor: Option<f64> = None,
    }
}

section! {
    /// Text to train on and to hold out.
    pub struct DataSection {
        /// Text files and directories to train on, relative to the working directory. An empty list
        /// selects the built-in text, which is enough for a quick test.
        pub paths: Vec<PathBuf> = vec![],
        /// Text files and directories to evaluate on. If empty, a part of the training text is held
        /// out.
        pub valid_paths: Vec<PathBuf> = vec![],
        /// Corpora of shards to train on, made by `ssa data prepare` or by Megatron-LM, instead of
        /// `paths`: directories, or the common path of a `.bin` and `.idx` file. Rows are drawn
        /// from them in proportion to their weights.
        pub corpora: Vec<WeightedCorpus> = vec![],
        /// Corpora of shards to evaluate on. If empty, whole documents of `corpora` are held out.
        pub valid_corpora: Vec<PathBuf> = vec![],
        /// Share of the training text that is held out, between 0 and 1 (not used with
        /// `valid_paths` or `valid_corpora`).
        pub held_out_fraction: f64 = HELD_OUT_FRACTION,
        /// Tokenizer of `paths` and of corpora without their own: `bytes`, a `tokenizer.json`, a
        /// directory with one, or a model of the Hugging Face Hub. Absent: the tokenizer of
        /// `model.init_from` if it has one, else that of the corpora; `bytes` for `paths`.
        pub tokenizer: Option<PathBuf> = None,
        /// Whether to verify the checksums of all shards before the run, which reads every byte of
        /// them. If false, only sizes and index checksums are verified, for corpora with a
        /// manifest.
        pub verify_checksums: bool = false,
        /// Tokens per row, from 2 to 16777216. Documents are packed into rows; attention does not
        /// cross their borders.
        pub sequence_length: usize = 1024,
        /// How documents are packed into rows: `concat` (documents concatenated and split at row
        /// boundaries), `best-fit` (documents that fit a row stay whole, each in the fullest row
        /// with room for it) or `greedy` (as in the released code: documents in order, with a new
        /// row when the next one does not fit). Evaluation always uses `concat`.
        pub packing: Packing = Packing::Concat,
    }
}

/// Which attention outputs the alignment loss compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlignmentInput {
    /// After the gate, as in the released code.
    Gated,
    /// Before the gate, as in Algorithm 1 of the paper.
    Ungated,
}

ssa_names::names!(AlignmentInput: "input of the alignment loss" {
    Gated = "gated",
    Ungated = "ungated",
});

section! {
    /// The training objective and its attention method.
    pub struct ObjectiveSection {
        /// Attention method: `full`, `moba` (sparse only), `nsa` (compression, selection and window
        /// with three gates) or `ssa` (full and sparse, aligned).
        pub method: Method = Method::SSA,
        /// Weight of the alignment loss (method `ssa`); 0 disables it. Both losses are means over
        /// the whole optimizer step, so the effective weight does not depend on the number of
        /// micro-batches.
        pub alpha: f64 = 10.0,
        /// Steps over which the weight of the alignment loss grows linearly to `alpha`; 0 for no
        /// warm-up. In a retrofit, sparse outputs are poor at first and should not pull full
        /// attention toward them.
        pub alpha_warmup_steps: usize = 0,
        /// Probability that full attention feeds the next layer in a step (method `ssa`).
        pub full_ratio: f64 = 0.5,
        /// Distance between full and sparse outputs: `smooth_l1` (with beta 1) or `mse`.
        pub alignment: AlignmentKind = AlignmentKind::SmoothL1,
        /// Which output the alignment loss moves: `both`, `full_to_sparse` (only the full output
        /// moves towards the sparse one) or `sparse_to_full` (only the sparse output moves). The
        /// paper reports that one-sided alignment diverges.
        pub alignment_direction: AlignmentDirection = AlignmentDirection::Both,
        /// Outputs that the alignment loss compares: `gated` (as in the released code) or `ungated`
        /// (Algorithm 1 of the paper).
        pub alignment_on: AlignmentInput = AlignmentInput::Gated,
        /// How often the stream is drawn: once per `step`, per `micro_batch`, or for each `layer`
        /// of a step. The paper reports that drawing per layer diverges.
        pub stream_draw: StreamScope = StreamScope::Step,
        /// Whether attention is masked across documents in `both` streams, or in the full stream
        /// only (`full_only`, as in the released code).
        pub document_masking: DocumentMasking = DocumentMasking::Both,
        /// Weight of z-loss, the mean squared log-partition function of the softmax, which keeps
        /// the logits from drifting. 1e-4 is common; 0 disables it.
        pub z_loss: f64 = 0.0,
        /// Rule for block selection: `exact` top-k, or `reference`, the approximation in the
        /// released kernel.
        pub selection: SelectionRule = SelectionRule::Exact,
    }
}

section! {
    /// Number of steps and batch size.
    pub struct TrainingSection {
        /// Number of optimizer steps, at most 2^40, like all counts.
        pub steps: usize = 200,
        /// Rows per optimizer step, at most 1048576.
        pub batch_size: usize = 8,
        /// Rows of the first step. The batch then grows linearly to `batch_size` over
        /// `batch_ramp_steps`, in whole micro-batches. Absent: every step has `batch_size` rows.
        pub batch_size_start: Option<usize> = None,
        /// Steps over which the batch grows from `batch_size_start` to `batch_size`.
        pub batch_ramp_steps: usize = 0,
        /// Rows per micro-batch (gradient accumulation): smaller values need less memory and give
        /// the same result up to rounding. Must divide `batch_size` and `batch_size_start`. Absent:
        /// `batch_size_start` if there is one, else `batch_size`, divided by `groups`.
        pub micro_batch_size: Option<usize> = None,
        /// Groups of micro-batches, a power of two of at most 4096. The gradients of a group are
        /// added one after the other, those of the groups in a binary tree. A run gives the same
        /// bits on any number of ranks that divides `groups`. `groups * micro_batch_size` must
        /// divide `batch_size` and `batch_size_start`. With fewer ranks than groups, each doubling
        /// of `groups` takes the memory of one more gradient.
        pub groups: usize = 1,
        /// Whether to use activation checkpointing: save only the input of each layer and recompute
        /// the rest in the backward pass. A third more work for a fraction of the memory.
        pub recompute: bool = false,
        /// Steps between two progress lines. The metrics file has every step.
        pub log_every: usize = 10,
        /// Consecutive steps with a non-finite loss or gradient (NaN or Inf) before the run rolls
        /// back to its last checkpoint. Each such step leaves the weights unchanged and is retried
        /// on the next rows; if the rollback does not help, the run stops.
        pub max_bad_steps: usize = 3,
    }
}

section! {
    /// When to save checkpoints, and which ones to keep.
    pub struct CheckpointSection {
        /// Steps between two checkpoints; 0 disables this. The last step and interruptions always
        /// save one.
        pub every_steps: usize = 100,
        /// Minutes after which a checkpoint is saved even before `every_steps` is reached; 0
        /// disables this.
        pub every_minutes: f64 = 15.0,
        /// Number of newest checkpoints to keep.
        pub keep_last: usize = 2,
        /// Checkpoints at multiples of this step are kept permanently; 0 for none.
        pub keep_every: usize = 0,
    }
}

section! {
    /// AdamW, gradient clipping and learning rate.
    pub struct OptimizerSection {
        /// Peak learning rate, reached at the end of the warm-up.
        pub learning_rate: f64 = 1e-3,
        /// Learning-rate schedule after the warm-up: `cosine` (cosine decay to the minimum) or
        /// `wsd` (warm-up, stable, decay: the peak until the last `decay_fraction` of the steps,
        /// then linear decay to the minimum).
        pub schedule: ScheduleShape = ScheduleShape::Cosine,
        /// Fraction of the steps over which `wsd` decays the learning rate, between 0 and 1.
        pub decay_fraction: f64 = 0.2,
        /// Final learning rate of the schedule.
        pub min_learning_rate: f64 = 0.0,
        /// Fraction of the steps used for warm-up, between 0 and 1 (not used with `warmup_steps`).
        pub warmup_fraction: f64 = 0.01,
        /// Number of warm-up steps. Absent: `warmup_fraction` of `training.steps`, rounded.
        pub warmup_steps: Option<usize> = None,
        /// Decay rate of the first moment.
        pub beta1: f64 = 0.9,
        /// Decay rate of the second moment.
        pub beta2: f64 = 0.95,
        /// Added to the denominator of the update for numerical stability.
        pub eps: f64 = 1e-8,
        /// Decoupled weight decay, per step and unit of learning rate.
        pub weight_decay: f64 = 0.1,
        /// Weights that decay: `matrices` (all except norm weights, whose neutral value is 1),
        /// `layers` (matrices in the layers: no norms, embedding or output layer) or `all`.
        pub weight_decay_on: DecayedWeights = DecayedWeights::Matrices,
        /// Parameters to train, as patterns that match whole parts of a name between its dots, such
        /// as `"q_proj"`, `"mlp"`, `"layers.0"` or `"embed_tokens"` (which includes a tied head).
        /// An empty list means all parameters.
        pub trainable: Vec<String> = vec![],
        /// Parameters to freeze, as patterns of the same form; they take precedence over
        /// `trainable`. A frozen parameter has no gradient and no optimizer state.
        pub frozen: Vec<String> = vec![],
        /// Maximum global L2 norm of the gradient; a larger gradient is scaled down to it.
        pub max_grad_norm: f64 = 1.0,
    }
}

/// Blocks of the default size, from one to half of a default row.
fn default_budgets() -> Vec<SparseBudget> {
    let budgets = [1, 2, 4, 8, 16, 32].into_iter();
    budgets.filter_map(|counts| SparseBudget::new(16, counts).ok()).collect()
}

section! {
    /// What the evaluation after training measures.
    pub struct EvaluationSection {
        /// Sparse attention budgets, each block size x number of blocks: a list, or one string such
        /// as `"16x4,16x8"`. An empty list measures full attention only. With `objective.selection
        /// = "reference"` both numbers must be powers of two, and the number of blocks at most the
        /// block size.
        pub budgets: Vec<SparseBudget> = default_budgets(),
        /// Rows per evaluation batch, at most 1048576.
        pub batch_size: usize = 4,
        /// Held-out tokens for the losses, rounded up to whole rows; all of them if there are
        /// fewer. Several corpora share them by weight.
        pub tokens: usize = 1_048_576,
        /// Held-out tokens for the attention statistics, rounded up to whole rows. These cost more
        /// than the losses.
        pub analysis_tokens: usize = 8192,
    }
}
