//! `ssa eval` and `ssa analyze`: measuring a model on benchmark tasks and on held-out text.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ssa_eval::harness::RowsOf;
use ssa_eval::sliding::RopeMethod;
use ssa_infer::Budget;
use ssa_kernels::ops::attention::selection::SelectionRule;

use super::attentions::{AttentionsArgs, BudgetList};
use super::context_length::{ContextLengthArgs, TokenCount};
use super::grid::GridArgs;
use super::{ComputeArgs, named, parse_positive, parse_size};

/// More examples than any task has.
const MOST_EXAMPLES: usize = 1 << 16;
/// The seed of lm-evaluation-harness.
const FEWSHOT_SEED: u64 = 1234;

/// Measure a model on benchmark tasks, or on held-out text.
///
/// Tasks are those of EleutherAI's lm-evaluation-harness, with its prompts, few-shot draws and
/// scores: arc_challenge, arc_easy, boolq, hellaswag, lambada_openai, piqa, wikitext, winogrande,
/// and your own in YAML files of the same shape. Rows come from the Hugging Face Hub, or from local
/// files (--data). Every attention and budget is a row of the table. On the CPU, results do not
/// depend on the batch.
///
/// Tasks for long contexts are generated at any length: niah_single, niah_multikey,
/// niah_multikey_needles and vt (needles in a haystack and variable tracking of RULER) and
/// kv_retrieval. --data TASK=PATH gives the text of the haystack. With _choice at the end of their
/// names, they are scored by likelihood among candidates, for small models.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Examples:
  ssa eval piqa arc_easy --model HuggingFaceTB/SmolLM2-135M --limit 100
  ssa eval hellaswag --model DIR --num-fewshot 5 --budget 16x4,16x16
  ssa eval piqa --model DIR --data piqa=validation.jsonl --data piqa:train=train.jsonl
  ssa eval niah_single_choice --model DIR --data niah_single_choice=book.txt --lengths 1k,4k
  ssa eval own.yaml --model DIR --attention sparse --output results.json --log-samples")]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EvalCommand>,
    #[command(flatten)]
    pub(crate) tasks: TasksArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    Perplexity(PerplexityArgs),
    ContextLength(ContextLengthArgs),
}

/// Tasks and how to run them.
#[derive(Debug, Args)]
pub(crate) struct TasksArgs {
    /// Tasks by name, or YAML files of tasks.
    #[arg(value_name = "TASK", required = true)]
    pub(crate) tasks: Vec<String>,
    /// Checkpoint directory in Hugging Face layout (config.json, safetensors weights); a run
    /// directory: then its trained model, or its last checkpoint if it is not finished; or a model
    /// of the Hugging Face Hub, `OWNER/NAME[@REVISION]`.
    #[arg(long, value_name = "DIR|NAME", required = true)]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) attentions: AttentionsArgs,
    /// Local rows of a task instead of those of the Hub: JSON lines, JSON or Parquet, also
    /// compressed; for a generated task, text of the haystack. Without SPLIT those that are
    /// evaluated; few-shot examples are usually those of the split `train`. May be given several
    /// times.
    #[arg(long, value_name = "TASK[:SPLIT]=PATH")]
    pub(crate) data: Vec<RowsOf>,
    /// Examples before each document. Default: as the task says, mostly 0.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = |text: &str| parse_size(text, 0, MOST_EXAMPLES))]
    pub(crate) num_fewshot: Option<usize>,
    /// Seed of the draws of examples.
    #[arg(long, value_name = "N", default_value_t = FEWSHOT_SEED)]
    pub(crate) fewshot_seed: u64,
    /// Evaluate only the first N documents of each task.
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) grid: GridArgs,
    /// Context of the model in tokens; 1k is 1024. Longer ones than its max_position_embeddings
    /// extrapolate. Default: max_position_embeddings.
    #[arg(long, value_name = "N")]
    pub(crate) context_length: Option<TokenCount>,
    /// Scaling of RoPE for --context-length, by its ratio to max_position_embeddings: none, linear
    /// (position interpolation), ntk (NTK-aware theta) or yarn.
    #[arg(long, value_name = "METHOD", default_value_t = RopeMethod::None)]
    #[arg(value_parser = named::<RopeMethod>())]
    pub(crate) rope: RopeMethod,
    /// Tokens that are computed together, except for longer documents.
    #[arg(long, value_name = "N", default_value = "4096", value_parser = parse_positive)]
    pub(crate) batch_tokens: usize,
    /// Write the results as JSON to a file. Until it is complete, answers are kept in FILE.partial,
    /// and the same command resumes after the last document.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace --output, and discard an unfinished evaluation.
    #[arg(long, requires = "output")]
    pub(crate) overwrite: bool,
    /// Put every request and answer into the JSON.
    #[arg(long)]
    pub(crate) log_samples: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Measure perplexity and bits per byte with full attention and sparse attention at any budget.
///
/// Bits per byte, the bits of all targets over the bytes of the text, is comparable across
/// tokenizers. KL is the divergence between the next-token distributions of full and sparse
/// attention, in nats per token.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa eval perplexity --model runs/demo/checkpoint
  ssa eval perplexity --model runs/demo/checkpoint --data notes/ --budget 16x4,16x8
  ssa eval perplexity --model runs/demo/checkpoint --budget 16x8,mass=0.9,2..32
  ssa eval perplexity --model HuggingFaceTB/SmolLM2-135M --data notes/ --budget 16x16")]
pub(crate) struct PerplexityArgs {
    #[command(flatten)]
    pub(crate) held_out: HeldOutArgs,
    /// Sparse attention budgets, block size x number of blocks, such as 16x4,16x8, or the share of
    /// the attention to keep within a number of blocks, such as mass=0.95,4..64. Default: the
    /// model's block size with 1, 2, 4, 8, 16 and 32 blocks, and the training budget.
    #[arg(long = "budget", alias = "budgets", value_name = "BUDGET,...")]
    pub(crate) budgets: Vec<BudgetList>,
    /// Tokens for the mean attention sparsity, rounded up to whole batches; 0 skips it. It costs
    /// more than the losses, which always use the whole text.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub(crate) analysis_tokens: usize,
}

/// Compare full and sparse attention inside every layer of a checkpoint.
///
/// For the hidden states of full and of sparse inference, measures the full-attention weight on the
/// selected blocks, the entropy of full attention, the distance between the two outputs, and the
/// bound of Theorem 1 on that distance.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa analyze --model runs/demo/checkpoint
  ssa analyze --model runs/demo/checkpoint --budget 16x8 --json
  ssa analyze --model runs/demo/checkpoint --data book.txt --sequence-length 8192 --detail")]
pub(crate) struct AnalyzeArgs {
    #[command(flatten)]
    pub(crate) held_out: HeldOutArgs,
    /// Sparse attention budget: block size x number of blocks, such as 16x4, or the share of the
    /// attention to keep within a number of blocks, such as mass=0.95,4..64: then the table has the
    /// blocks read, and the estimated and the true share. Default: the training budget.
    #[arg(long, value_name = "BUDGET")]
    pub(crate) budget: Option<Budget>,
    /// Tokens to analyze, rounded up to whole batches.
    #[arg(long, value_name = "N", default_value = "8192", value_parser = parse_positive)]
    pub(crate) tokens: usize,
    /// Also measure by head and by context length, how far back selected blocks and full attention
    /// are, and how many of the selected blocks are those with the most attention.
    #[arg(long)]
    pub(crate) detail: bool,
}

/// A checkpoint and the text to measure it on, for both verbs.
#[derive(Debug, Args)]
pub(crate) struct HeldOutArgs {
    /// Checkpoint directory in Hugging Face layout (config.json, safetensors weights); a run
    /// directory: then its trained model, or its last checkpoint if it is not finished; or a model
    /// of the Hugging Face Hub, `OWNER/NAME[@REVISION]`.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: PathBuf,
    /// Text files or directories to measure on, or corpora from `ssa data prepare`. Default: the
    /// text held out by the run of the checkpoint, according to its config.toml; without a run, the
    /// default held-out part of the built-in text.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// Tokens per row. Default: as in the run, else max_position_embeddings of the model, at most
    /// 1024.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = |text: &str| parse_size(text, 2, super::LONGEST_ROW))]
    pub(crate) sequence_length: Option<usize>,
    /// Rows per batch. Results do not depend on this.
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_positive)]
    pub(crate) batch_size: usize,
    /// Rule for block selection: exact top-k, or the approximation in the released kernel, for
    /// parity with published checkpoints.
    #[arg(long, value_name = "RULE", default_value_t = SelectionRule::Exact)]
    #[arg(value_parser = named::<SelectionRule>())]
    pub(crate) selection: SelectionRule,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}
