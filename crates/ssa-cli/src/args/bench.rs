//! `ssa bench`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use ssa_model::{Method, SparseBudget};

use super::{ComputeArgs, LARGEST_COUNT, LONGEST_ROW, named, parse_positive, parse_size};

/// Most heads, and most dimensions of one.
const LARGEST_HEAD_SIZE: usize = 1 << 12;

/// Measure attention, matrix products and whole training steps on this machine's device.
///
/// Times are medians after a warm-up, on rotating random inputs to defeat the L2 cache. Rates are
/// compared with a large square matrix product and a large addition, both measured first. On the
/// CPU pass small sizes.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    Attention(BenchAttentionArgs),
    Gemm(BenchGemmArgs),
    Step(BenchStepArgs),
}

/// What the benchmarks share.
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// Also write all numbers as JSON, with date, commit, device and versions.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Replace the file of --json if it exists.
    #[arg(long, requires = "json")]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Measure the parts of attention, forward and backward.
///
/// Pooling, selection, sparse and full attention, alignment and gate, each by itself, on one row of
/// one document. Sparse attention runs on the blocks that random inputs select, which is the worst
/// case, and on local blocks, which neighboring tokens share as they do in trained models. A part
/// that the device has no kernel or no memory for is listed with the reason.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa bench attention
  ssa bench attention --device cpu --tokens 1024 --heads 16/1 --json attention.json")]
pub(crate) struct BenchAttentionArgs {
    /// Lengths of the row. Powers of two from 2048 to 131072 on a GPU by default, 512 and 2048 on
    /// the CPU.
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = parse_tokens)]
    pub(crate) tokens: Vec<usize>,
    /// Budgets of sparse attention: block size x number of blocks.
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
    /// Dimensions of a head.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = parse_head_dim)]
    pub(crate) head_dim: usize,
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
    /// Models whose products are measured: ssa-1b, ssa-300m.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "ssa-1b,ssa-300m")]
    pub(crate) presets: Vec<String>,
    /// Tokens of a micro-batch. The output head processes 4096 at a time.
    #[arg(long, value_name = "N", default_value_t = 16384, value_parser = parse_tokens)]
    pub(crate) tokens: usize,
    #[command(flatten)]
    pub(crate) record: RecordArgs,
}

/// Measure whole optimizer steps on random tokens: forward, backward, clipping, AdamW.
///
/// The trainer of `ssa train` runs them, with one document per row. For method ssa the stream is
/// drawn as in training, and each stream is reported by itself.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa bench step --preset ssa-300m
  ssa bench step --device cpu --config configs/demo.toml --batch 8")]
pub(crate) struct BenchStepArgs {
    /// Model: ssa-1b or ssa-300m.
    #[arg(long, value_name = "NAME", default_value = "ssa-1b", conflicts_with = "config")]
    pub(crate) preset: String,
    /// Take model, objective and optimizer from this configuration of `ssa train` instead. Its data
    /// is not opened; the vocabulary is `model.vocab_size`, or that of `data.tokenizer`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Method; that of the configuration by default, ssa for a preset.
    #[arg(long, value_name = "METHOD", value_parser = named::<Method>())]
    pub(crate) method: Option<Method>,
    /// Budget of sparse attention; that of the model by default.
    #[arg(long, value_name = "BUDGET")]
    pub(crate) budget: Option<SparseBudget>,
    /// Tokens of a row; as in the configuration by default, 8192 for a preset.
    #[arg(long, value_name = "N", value_parser = parse_tokens)]
    pub(crate) tokens: Option<usize>,
    /// Rows of a step, in one micro-batch.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = parse_positive)]
    pub(crate) batch: usize,
    /// Steps of each stream to measure.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = parse_positive)]
    pub(crate) steps: usize,
    /// Warm-up steps of each stream.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = parse_warm_up)]
    pub(crate) warm_up: usize,
    /// Recompute activations in the backward from the input of each layer.
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

/// Numbers of query and of key/value heads, as in `32/2`.
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
