//! The grid of generated documents.

use clap::Args;

use super::context_length::TokenCount;
use super::{parse_positive, parse_size};

/// Seed and samples of RULER, which has 500 samples per length.
const SEED: u64 = 42;
const SAMPLES: usize = 10;

/// Lengths, depths and samples of tasks whose documents are generated.
#[derive(Debug, Args)]
#[command(next_help_heading = "Generated tasks")]
pub(crate) struct GridArgs {
    /// Tokens of a document, prompt and answer together; 1k is 1024. Default: the model's context,
    /// at most 4k.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub(crate) lengths: Vec<TokenCount>,
    /// Depths of the answer in percent of the context. Default: 0,25,50,75,100.
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',')]
    #[arg(value_parser = |text: &str| parse_size(text, 0, 100))]
    pub(crate) depths: Vec<usize>,
    /// Documents of each length and depth.
    #[arg(long, value_name = "N", default_value_t = SAMPLES, value_parser = parse_positive)]
    pub(crate) samples: usize,
    /// Seed of keys, values and places.
    #[arg(long, value_name = "N", default_value_t = SEED)]
    pub(crate) seed: u64,
}
