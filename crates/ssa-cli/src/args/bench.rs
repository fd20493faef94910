//! `ssa bench`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use ssa_model::{AttentionMode, Method, SparseBudget};

use super::{ComputeArgs, LARGEST_COUNT, LONGEST_ROW, named, parse_positive, parse_size};

/// Maximum number of heads, and maximum head dimension.
const LARGEST_HEAD_SIZE: usize = 1 << 12;

/// Measure attention, matrix products, training and decoding steps on this machine's device.
///
/// Times are medians after a warm-up, on rotating random inputs to defeat the L2 cache. Rates are
/// compared with a large square matrix product and a large addition, both measured first. On the
/// CPU, pass small sizes.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    Attention(BenchAttentionArgs),
    Decode(BenchDecodeArgs),
    Gemm(BenchGemmArgs),
    Step(BenchStepArgs),
}

/// Flags of all benchmarks.
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// Also write all numbers as JSON, with date, commit, device and versions.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Replace the --json file if it exists.
    #[arg(long, requires = "json")]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Measure the parts of attention, forward and backward.
///
/// Measures pooling, selection, sparse and full attention, alignment and gate separately, on one
/// row with one document. Sparse attention runs on the blocks that random inputs select (the worst
/// case) and on local blocks, which neighboring tokens share as in trained models. A part without a
/// kernel or enough memory on the device is listed with the reason.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa bench attention
  ssa bench attention --device cpu --tokens 1024 --heads 16/1 --json attention.json")]
pub(crate) struct BenchAttentionArgs {
    /// Row lengths in tokens. Default: powers of two from 2048 to 131072 on a GPU, 512 and 2048 on
    /// the CPU.
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = parse_tokens)]
    pub(crate) tokens: Vec<usize>,
    /// Sparse attention budgets: block size x number of blocks.
    #[arg(
        long = "budget",
        alias = "budgets",
        value_name = "BUDGET,...",
        value_delimiter = ',',
        default_value = "16x16,64x16"
    )]
    pub(crate) budgets: Vec<SparseBudget>,
    /// Query heads / key/value heads.
    #[arg(long, value_name = "HQ/H", default_value_t = Heads { q_heads: 32, kv_heads: 2 })]
    pub(crate) heads: Heads,
    /// Head dimension.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = parse_head_dim)]
    pub(crate) head_dim: usize,
    #[command(flatten)]
    pub(crate) record: RecordArgs,
}

/// Measure decoding steps over long contexts: one token of each sequence.
///
/// Weights and contexts are random; contexts are written to the cache, not computed. On a GPU a
/// step is a CUDA graph that also chooses the next tokens, and the time of its attention is the
/// difference to a step without it. The bytes that a step must read are its weights and the keys,
/// values or block means that its attention needs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa bench decode --batch 1,16 --context 8192,131072
  ssa bench decode --device cpu --preset ssa-300m --context 512 --steps 8")]
pub(crate) struct BenchDecodeArgs {
    /// Model: ssa-1b or ssa-300m.
    #[arg(long, value_name = "NAME", default_value = "ssa-1b")]
    pub(crate) preset: String,
    /// Sequences per step.
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1",
        value_parser = parse_positive
    )]
    pub(crate) batch: Vec<usize>,
    /// Tokens of each sequence before the first step.
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "8192",
        value_parser = parse_tokens
    )]
    pub(crate) context: Vec<usize>,
    /// Modes of attention: full, sparse.
    #[arg(
        long,
        value_name = "MODE,...",
        value_delimiter = ',',
        default_value = "full,sparse",
        value_parser = named::<AttentionMode>()
    )]
    pub(crate) attention: Vec<AttentionMode>,
    /// Sparse attention budget. Default: that of the model.
    #[arg(long, value_name = "BUDGET")]
    pub(crate) budget: Option<SparseBudget>,
    /// Measured steps.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = parse_positive)]
    pub(crate) steps: usize,
    /// Warm-up steps.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = parse_warm_up)]
    pub(crate) warm_up: usize,
    /// Also measure a prompt as long as each context, up to the logits of its first token.
    #[arg(long)]
    pub(crate) prefill: bool,
    #[command(flatten)]
    pub(crate) record: RecordArgs,
}

/// Measure the matrix products of a training step, forward and both gradients.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa bench gemm
  ssa bench gemm --device cpu --presets ssa-300m --tokens 512")]
pub(crate) struct BenchGemmArgs {
    /// Models to measure: ssa-1b, ssa-300m.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "ssa-1b,ssa-300m")]
    pub(crate) presets: Vec<String>,
    /// Tokens per micro-batch. The output head processes 4096 at a time.
    #[arg(long, value_name = "N", default_value_t = 16384, value_parser = parse_tokens)]
    pub(crate) tokens: usize,
    #[command(flatten)]
    pub(crate) record: RecordArgs,
}

/// Measure whole optimizer steps on random tokens: forward, backward, clipping, AdamW.
///
/// Uses the trainer of `ssa train`, with one document per row. For method ssa the stream is drawn
/// as in training, and each stream is reported separately.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa bench step --preset ssa-300m
  ssa bench step --device cpu --config configs/demo.toml --batch 8")]
pub(crate) struct BenchStepArgs {
    /// Model: ssa-1b or ssa-300m.
    #[arg(long, value_name = "NAME", default_value = "ssa-1b", conflicts_with = "config")]
    pub(crate) preset: String,
    /// Use model, objective and optimizer of this `ssa train` configuration instead. Its data is
    /// not opened; the vocabulary size is `model.vocab_size`, or that of `data.tokenizer`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Attention method. Default: that of the configuration, or ssa for a preset.
    #[arg(long, value_name = "METHOD", value_parser = named::<Method>())]
    pub(crate) method: Option<Method>,
    /// Sparse attention budget. Default: that of the model.
    #[arg(long, value_name = "BUDGET")]
    pub(crate) budget: Option<SparseBudget>,
    /// Tokens per row. Default: as in the configuration, or 8192 for a preset.
    #[arg(long, value_name = "N", value_parser = parse_tokens)]
    pub(crate) tokens: Option<usize>,
    /// Rows per step, in one micro-batch.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = parse_positive)]
    pub(crate) batch: usize,
    /// Measured steps per stream.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = parse_positive)]
    pub(crate) steps: usize,
    /// Warm-up steps per stream.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = parse_warm_up)]
    pub(crate) warm_up: usize,
    /// Recompute activations in the backward pass (activation checkpointing).
    #[arg(long)]
    pub(crate) recompute: bool,
    #[command(flatten)]
    pub(crate) record: RecordArgs,
}

fn parse_tokens(text: &str) -> Result<usize, String> {
    parse_size(text, 1, LONGEST_ROW)
}

fn parse_warm_up(text: &str) -> Result<usize, String> {
    parse_size(text, 0, LARGEST_COUNT)
}

fn parse_head_dim(text: &str) -> Result<usize, String> {
    parse_size(text, 1, LARGEST_HEAD_SIZE)
}

/// Numbers of query and key/value heads, as in `32/2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    pub(crate) q_heads: usize,
    pub(crate) kv_heads: usize,
}

impl FromStr for Heads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once('/').and_then(|(q, kv)| Some((q.parse().ok()?, kv.parse().ok()?)));
        numbers
            .filter(|&(q_heads, kv_heads): &(usize, usize)| {
                (1..=LARGEST_HEAD_SIZE).contains(&q_heads)
                    && kv_heads > 0
                    && q_heads % kv_heads == 0
            })
            .map(|(q_heads, kv_heads)| Self { q_heads, kv_heads })
            .ok_or_else(|| {
                "expected two integers of at most 4096 such as 32/2, the second a divisor of the \
                 first"
                    .to_owned()
            })
    }
}

impl fmt::Display for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.q_heads, self.kv_heads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_two_numbers_that_fit() {
        assert_eq!("32/2".parse(), Ok(Heads { q_heads: 32, kv_heads: 2 }));
        assert_eq!(Heads { q_heads: 6, kv_heads: 3 }.to_string(), "6/3");
        for bad in ["", "32", "32/", "0/1", "4/0", "5/2", "2/4", "a/b", "4097/1"] {
            let message = bad.parse::<Heads>().unwrap_err();
            assert!(message.contains("such as 32/2"), "{bad}: {message}");
        }
    }
}
