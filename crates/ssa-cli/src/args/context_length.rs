//! `ssa eval context-length`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use ssa_eval::sliding::RopeMethod;

use super::attentions::AttentionsArgs;
use super::{ComputeArgs, LONGEST_ROW, named, parse_positive, parse_size};

/// The window lengths of the paper.
const LENGTHS: &str = "1k,2k,4k,8k,16k,32k";

/// Measure perplexity by context length, with a sliding window over whole documents.
///
/// A window of L tokens scores its last tokens, as many as the stride; then it moves on by the
/// stride. All lengths score the same tokens. Windows longer than the model's context show how it
/// extrapolates, without and with scaling of RoPE. Each scored window costs a forward pass over L
/// tokens; memory is linear in L.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa eval context-length --model DIR --data book.txt --lengths 1k,2k,4k --budget 16x16
  ssa eval context-length --model DIR --data books/ --rope none,yarn --html lengths.html
  ssa eval context-length --model DIR --data books/ --windows 200 --output lengths.json")]
pub(crate) struct ContextLengthArgs {
    /// Checkpoint directory in Hugging Face layout (config.json, safetensors weights); a run
    /// directory: then its trained model, or its last checkpoint if it is not finished; or a model
    /// of the Hugging Face Hub, `OWNER/NAME[@REVISION]`.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: PathBuf,
    /// Documents to measure on: text files, directories, JSON lines or Parquet, also compressed.
    /// Those shorter than the longest window are left out and counted.
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// Window lengths in tokens; 1k is 1024.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = LENGTHS)]
    pub(crate) lengths: Vec<TokenCount>,
    /// Tokens that a window scores, and by which it moves on.
    #[arg(long, value_name = "N", default_value = "256", value_parser = parse_positive)]
    pub(crate) stride: usize,
    /// Score only N windows of each length, spread evenly over all documents. Default: all.
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub(crate) windows: Option<usize>,
    /// Scaling of RoPE, one or several: none, linear (position interpolation), ntk (NTK-aware
    /// theta), yarn.
    #[arg(long, value_name = "METHOD,...", value_delimiter = ',', default_value = "none")]
    #[arg(value_parser = named::<RopeMethod>())]
    pub(crate) rope: Vec<RopeMethod>,
    /// Factor of the scaling for all windows. Default: window length over original length, at least
    /// 1.
    #[arg(long, value_name = "X", value_parser = parse_factor)]
    pub(crate) rope_factor: Option<f64>,
    /// Context length of training, from which RoPE is scaled. Default: the model's
    /// max_position_embeddings.
    #[arg(long, value_name = "N")]
    pub(crate) original_length: Option<TokenCount>,
    #[command(flatten)]
    pub(crate) attentions: AttentionsArgs,
    /// Tokens that are computed together, except for longer windows.
    #[arg(long, value_name = "N", default_value = "4096", value_parser = parse_positive)]
    pub(crate) batch_tokens: usize,
    /// Write the results as JSON to a file. Until it is complete, scores are kept in FILE.partial,
    /// and the same command resumes after the last window.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write a page with charts and tables.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Replace --output and --html, and discard an unfinished evaluation.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// A number of tokens: 4096 or 4k.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenCount(pub(crate) usize);

impl FromStr for TokenCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, unit) = match text.strip_suffix(['k', 'K']) {
            Some(digits) => (digits, 1024),
            None => (text, 1),
        };
        let error = |_| format!("expected an integer from 2 to {LONGEST_ROW}, or one such as 4k");
        parse_size(digits, 1, LONGEST_ROW / unit)
            .and_then(|count| parse_size(&(count * unit).to_string(), 2, LONGEST_ROW))
            .map(Self)
            .map_err(error)
    }
}

fn parse_factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor: &f64| factor.is_finite() && *factor >= 1.0);
    factor.ok_or_else(|| "expected a number of at least 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_counts_have_a_unit() {
        for (text, count) in [("2", 2), ("1000", 1000), ("1k", 1024), ("32K", 32 << 10)] {
            assert_eq!(text.parse(), Ok(TokenCount(count)));
        }
        for text in ["", "k", "1", "0k", "1.5k", "-1", "99999999", "99999k"] {
            assert!(text.parse::<TokenCount>().unwrap_err().contains("such as 4k"), "{text}");
        }
        for text in ["0.5", "nan"] {
            assert_eq!(parse_factor(text).unwrap_err(), "expected a number of at least 1");
        }
        assert_eq!(parse_factor("2"), Ok(2.0));
    }
}
