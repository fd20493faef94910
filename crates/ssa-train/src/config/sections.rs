//! The sections and keys of a training configuration, with their defaults.
//!
//! The documentation comments are the reference page: they say what a key means, its unit, and what
//! happens when an optional key is absent.

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
        /// What is minimized, and by which attention.
        pub objective: ObjectiveSection = ObjectiveSection::default(),
        /// Length of the run and size of its steps.
        pub training: TrainingSection = TrainingSection::default(),
        /// AdamW, gradient clipping and learning rate.
        pub optimizer: OptimizerSection = OptimizerSection::default(),
        /// When the run is saved so that it can be continued, and which checkpoints stay. One holds
        /// weights and moments: three times the size of the model.
        pub checkpoint: CheckpointSection = CheckpointSection::default(),
        /// What the evaluation after training measures. Full attention is always measured where the
        /// method has it.
        pub evaluation: EvaluationSection = EvaluationSection::default(),
        /// What is measured and written during training. Probes and validation use held-out
        /// text, always the same rows, and change nothing of the training.
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
        /// Model to take the initial weights from, to train on for a longer context, another budget
        /// or by another method: a checkpoint directory, that of a run, or a model of the Hugging
        /// Face Hub (`hf://OWNER/NAME[@REVISION]` or `OWNER/NAME`). Keys of this section that are
        /// not given are then those of the model. Of those that are given,
        /// `max_position_embeddings`, `rope_scaling`, `block_size`, `block_counts` and
        /// `window_size` may differ from the model's, all others must be the same. Absent: random
        /// weights.
        pub init_from: Option<PathBuf> = None,
        /// Size of the vocabulary, at least that of the tokenizer and at most 16777216; larger to
        /// match a padded checkpoint, for example. Absent: that of the tokenizer.
        pub vocab_size: Option<usize> = None,
        /// Width of the residual stream, at most 1048576.
        pub hidden_size: usize = 128,
        /// Width of the feed-forward layer, at most 1048576.
        pub intermediate_size: usize = 384,
        /// Number of layers, at most 4096.
        pub num_hidden_layers: usize = 4,
        /// Number of query heads, a multiple of `num_key_value_heads` and at most 4096.
        pub num_attention_heads: usize = 8,
        /// Number of key/value heads. The query heads that share one also share their selection.
        pub num_key_value_heads: usize = 1,
        /// Dimensions of a head, an even number of at most 4096. Heads need not add up to
        /// `hidden_size`.
        pub head_dim: usize = 32,
        /// Longest document the model takes, in tokens, also in later use; at most 2147483648.
        /// Absent: `data.sequence_length`, or that of `init_from` if it is larger.
        pub max_position_embeddings: Option<usize> = None,
        /// Base of the rotary position embedding.
        pub rope_theta: f64 = 500_000.0,
        /// Added to the mean square in RMSNorm.
        pub rms_norm_eps: f64 = 1e-5,
        /// Standard deviation of the initial weights, at most 1000000; norm weights start at 1.
        pub initializer_range: f64 = 0.02,
        /// Whether the embedding is also the output head.
        pub tie_word_embeddings: bool = true,
        /// Whether attention outputs are multiplied by gates (`self_attn.g_proj`). Methods `nsa` and
        /// `ssa` need them; `ssa convert` adds them to a model without.
        pub gated: bool = true,
        /// Whether q, k and v have biases, as in Qwen2.
        pub qkv_bias: bool = false,
        /// Whether the heads of q and k are normalized before the rotary position embedding, as in
        /// Qwen3.
        pub qk_norm: bool = false,
        /// Tokens of a block of sparse attention, at most 1048576. With `objective.selection =
        /// "reference"` a power of two.
        pub block_size: usize = 16,
        /// Blocks a query attends to in training, its own included; at most 1048576. With
        /// `objective.selection = "reference"` a power of two of at most `block_size`.
        pub block_counts: usize = 4,
        /// Tokens of the sliding window, the query included (method `nsa` only); at most
        /// 2147483648.
        pub window_size: usize = 128,
        /// Stretching of the rotary position embedding for longer contexts. Absent: none.
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
}

ssa_names::names!(RopeType: "scaling of the rotary position embedding" {
    Llama3 = "llama3",
    Linear = "linear",
});

section! {
    /// Scaling of the rotary position embedding.
    pub struct RopeScalingSection {
        /// How it is scaled: `llama3`, which keeps short wavelengths, or `linear`, which stretches all
        /// by `factor` and uses no other key of this section.
        pub rope_type: RopeType = RopeType::Llama3,
        /// How many times longer the context becomes.
        pub factor: f64 = 4.0,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` tokens are
        /// stretched in full.
        pub low_freq_factor: f64 = 1.0,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` tokens stay as
        /// they are; between the two bounds the stretching is interpolated.
        pub high_freq_factor: f64 = 4.0,
        /// Context length the model was first trained at, in tokens; at most 2147483648.
        pub original_max_position_embeddings: usize = 8192,
    }
}

section! {
    /// Text to train on and to hold out.
    pub struct DataSection {
        /// Text files and directories to train on, relative to the working directory. An empty list
        /// means the text that is built into the program, which is enough for a model of up to 100
        /// million parameters.
        pub paths: Vec<PathBuf> = vec![],
        /// Text files and directories to evaluate on. An empty list means a part held out of the
        /// training text.
        pub valid_paths: Vec<PathBuf> = vec![],
        /// Corpora of shards to train on, made by `ssa data prepare` or by Megatron-LM, instead of
        /// `paths`: directories, or the common path of a `.bin` and `.idx` file. Rows are drawn
        /// from them in proportion to their weights.
        pub corpora: Vec<WeightedCorpus> = vec![],
        /// Corpora of shards to evaluate on. An empty list means whole documents held out of
        /// `corpora`.
        pub valid_corpora: Vec<PathBuf> = vec![],
        /// Share of the training text that is held out, between 0 and 1 (not used with
        /// `valid_paths` or `valid_corpora`).
        pub held_out_fraction: f64 = HELD_OUT_FRACTION,
        /// Tokenizer of `paths` and of corpora that do not come with theirs: `bytes`, a
        /// `tokenizer.json`, a directory with one, or a model of the Hugging Face Hub. Absent: that
        /// of `model.init_from` if it has one, else that of the corpora, `bytes` for `paths`.
        pub tokenizer: Option<PathBuf> = None,
        /// Whether the checksums of all shards are verified before the run, which reads every byte
        /// of them. Without it sizes and the checksums of the indices are, for corpora with a
        /// manifest.
        pub verify_checksums: bool = false,
        /// Tokens of a row, from 2 to 16777216. Documents are packed into rows; attention does not
        /// cross their borders.
        pub sequence_length: usize = 1024,
        /// How training text becomes rows: `concat` (documents concatenated and split at row
        /// boundaries), `best-fit` (documents kept whole where they fit, in the row with the least
        /// room for them) or `greedy` (as released: documents one after another, a new row when the
        /// next one does not fit). Evaluation always uses `concat`.
        pub packing: Packing = Packing::Concat,
    }
}

/// Which attention outputs the alignment loss compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlignmentInput {
    /// After the gate, as in the released code.
    Gated,
    /// Before the gate, as the paper's Algorithm 1 has it.
    Ungated,
}

ssa_names::names!(AlignmentInput: "input of the alignment loss" {
    Gated = "gated",
    Ungated = "ungated",
});

section! {
    /// What is minimized, and by which attention.
    pub struct ObjectiveSection {
        /// Attention to train: `full`, `moba` (only sparse), `nsa` (compression, selection and
        /// window under three gates) or `ssa` (full and sparse, aligned).
        pub method: Method = Method::SSA,
        /// Weight of the alignment loss (method `ssa`); 0 switches it off. Both losses are means
        /// over the whole optimizer step, so this weight does not depend on the number of
        /// micro-batches.
        pub alpha: f64 = 10.0,
        /// Steps over which the weight of the alignment loss grows linearly to `alpha`, so that a
        /// pretrained model is not pulled away before its sparse attention has adapted; 0 for none.
        pub alpha_warmup_steps: usize = 0,
        /// Probability that a step runs on full attention (method `ssa`).
        pub full_ratio: f64 = 0.5,
        /// Distance between full and sparse outputs: `smooth_l1` (with beta 1) or `mse`.
        pub alignment: AlignmentKind = AlignmentKind::SmoothL1,
        /// Which output is pulled to the other: `both`, `full_to_sparse` (only the full output
        /// moves) or `sparse_to_full` (only the sparse output moves). One side alone is an ablation
        /// that the paper reports to diverge.
        pub alignment_direction: AlignmentDirection = AlignmentDirection::Both,
        /// Outputs the alignment loss compares: `gated` (as released) or `ungated` (Algorithm 1 of
        /// the paper).
        pub alignment_on: AlignmentInput = AlignmentInput::Gated,
        /// How often the stream is drawn: once per `step`, per `micro_batch`, or for each `layer`
        /// of a step. The last is an ablation that the paper reports to diverge.
        pub stream_draw: StreamScope = StreamScope::Step,
        /// Whether documents are kept apart in `both` streams, or in the full stream only
        /// (`full_only`, as released).
        pub document_masking: DocumentMasking = DocumentMasking::Both,
        /// Weight of z-loss, the mean square of the logarithm of the softmax's normalizer: it keeps
        /// the logits from drifting, and 1e-4 is usual. 0 switches it off.
        pub z_loss: f64 = 0.0,
        /// Rule that selects blocks: `exact` top-k, or `reference`, the approximation of the
        /// released kernel.
        pub selection: SelectionRule = SelectionRule::Exact,
    }
}

section! {
    /// Length of the run and size of its steps.
    pub struct TrainingSection {
        /// Number of optimizer steps, at most 2^40 like every number that is only counted.
        pub steps: usize = 200,
        /// Rows of an optimizer step, at most 1048576.
        pub batch_size: usize = 8,
        /// Rows of the first step, from which the batch grows evenly to `batch_size` over
        /// `batch_ramp_steps`, in whole micro-batches. Absent: every step has `batch_size` rows.
        pub batch_size_start: Option<usize> = None,
        /// Steps over which the batch grows from `batch_size_start` to `batch_size`.
        pub batch_ramp_steps: usize = 0,
        /// Rows computed together: gradients of several micro-batches add up to one step, with the
        /// same result and less memory. It must divide `batch_size` and `batch_size_start`. Absent:
        /// `batch_size_start` if there is one, else `batch_size`.
        pub micro_batch_size: Option<usize> = None,
        /// Keep only the input of each layer and compute the rest again in the backward pass: a
        /// third more work for a fraction of the memory.
        pub recompute: bool = false,
        /// Steps between two lines of progress. The metrics file gets every step.
        pub log_every: usize = 10,
        /// Steps in a row whose loss or gradient is not a number before the run goes back to its
        /// last checkpoint. Each of them leaves the weights alone and is tried again on the next
        /// rows; if going back does not help, the run stops.
        pub max_bad_steps: usize = 3,
    }
}

section! {
    /// When the run is saved, and which checkpoints stay.
    pub struct CheckpointSection {
        /// Steps between two checkpoints; 0 for none by steps. The last step and an interruption
        /// are always saved.
        pub every_steps: usize = 100,
        /// Minutes after which a step is saved although `every_steps` has not come yet; 0 for none
        /// by time.
        pub every_minutes: f64 = 15.0,
        /// Number of checkpoints that are kept: the newest ones.
        pub keep_last: usize = 2,
        /// Checkpoints of steps that this number divides are kept for good; 0 for none.
        pub keep_every: usize = 0,
    }
}

section! {
    /// AdamW, gradient clipping and learning rate.
    pub struct OptimizerSection {
        /// Highest learning rate, reached at the end of the warm-up.
        pub learning_rate: f64 = 1e-3,
        /// Learning-rate schedule after the warm-up: `cosine`, half a cosine down to the
        /// minimum, or `wsd`, the highest rate until the last `decay_fraction` of the steps and
        /// then a straight line down to the minimum.
        pub schedule: ScheduleShape = ScheduleShape::Cosine,
        /// Share of the steps at the end over which `wsd` lowers the learning rate, between 0 and
        /// 1.
        pub decay_fraction: f64 = 0.2,
        /// Learning rate the schedule ends at.
        pub min_learning_rate: f64 = 0.0,
        /// Share of the steps that warm the learning rate up, between 0 and 1 (not used with
        /// `warmup_steps`).
        pub warmup_fraction: f64 = 0.01,
        /// Steps that warm the learning rate up. Absent: `warmup_fraction` of `training.steps`,
        /// rounded.
        pub warmup_steps: Option<usize> = None,
        /// Decay of the mean of the gradients.
        pub beta1: f64 = 0.9,
        /// Decay of the mean of their squares.
        pub beta2: f64 = 0.95,
        /// Added to the root of the mean square.
        pub eps: f64 = 1e-8,
        /// Decoupled weight decay, per step and unit of learning rate.
        pub weight_decay: f64 = 0.1,
        /// Weights that decay: `matrices` (all but those of the norms, whose neutral value is 1 and
        /// not 0), `layers` (the matrices of the layers: neither norms nor embedding and head) or
        /// `all`.
        pub weight_decay_on: DecayedWeights = DecayedWeights::Matrices,
        /// Parameters to train, as patterns of their names: whole parts between the dots, such as
        /// `"q_proj"`, `"mlp"`, `"layers.0"` or `"embed_tokens"` (with a tied head that is the head
        /// too). An empty list means all.
        pub trainable: Vec<String> = vec![],
        /// Parameters that stay as they are, as patterns of the same form; also of those that
        /// `trainable` names. A frozen parameter takes no memory for a gradient and moments.
        pub frozen: Vec<String> = vec![],
        /// Largest L2 norm of the gradient of all trained weights together; a longer gradient is scaled
        /// down to it.
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
        /// Budgets of sparse attention, each block size x number of blocks: a list, or one string
        /// such as `"16x4,16x8"`. An empty list for full attention alone. With
        /// `objective.selection = "reference"` both numbers are powers of two, and a budget has at
        /// most as many blocks as a block has tokens.
        pub budgets: Vec<SparseBudget> = default_budgets(),
        /// Rows evaluated together, at most 1048576.
        pub batch_size: usize = 4,
        /// Held-out tokens that losses are averaged over, rounded up to whole rows; all of them if
        /// there are fewer. Several corpora share them by weight.
        pub tokens: usize = 1_048_576,
        /// Held-out tokens that the attention statistics are averaged over, rounded up to whole
        /// rows; they cost more than the losses.
        pub analysis_tokens: usize = 8192,
    }
}
