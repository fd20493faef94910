//! Documents that are generated: needles in a haystack, variable tracking and key-value retrieval,
//! at given lengths and depths.
//!
//! A task file with `generator` has no rows of its own. Its documents form a grid: samples x
//! lengths x depths. A document has the fields
//!
//! | field | value |
//! |---|---|
//! | `context` | the text to search |
//! | `query` | what the question asks for |
//! | `answers` | the right texts |
//! | `choices`, `label` | candidates for scores by likelihood, and the number of the right one |
//!
//! and those that a generator adds. The templates of the task file make the prompt, so a task of
//! the user's own can ask in other words.
//!
//! # Length
//! A document takes as much context as fits: the tokens of the prompt, and of the longest candidate
//! or of the text to generate (`max_gen_toks`), are at most `length`. Where even the empty haystack
//! does not fit, the error says how many tokens it takes.
//!
//! # Determinism
//! All draws of a sample come from a Mersenne Twister seeded with SHA-256 of the kind of generator,
//! the seed and the number of the sample. Samples of other lengths and depths, and of other tasks
//! of this kind, therefore have the same keys and values: cells of the grid are comparable.
//!
//! # Source
//! Needles and variables: RULER, appendix B (arXiv 2404.06654), prompts of release 1.0. Key-value
//! retrieval: Liu et al. 2023 (arXiv 2307.03172). Where a document differs from these, its module
//! says so.

mod draws;
mod fit;
mod haystack;
mod needles;
mod pairs;
mod passage;
mod prepare;
#[cfg(test)]
mod tests;
mod variables;

pub(super) use prepare::GeneratedRows;
use serde::{Deserialize, Serialize};
use ssa_text::Json;

use haystack::Haystack;

/// What is generated: `generator` of a task file.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Generator {
    Needles(needles::Needles),
    Variables(variables::Variables),
    Pairs(pairs::Pairs),
}

/// The grid of generated documents.
#[derive(Clone, Debug)]
pub struct GridSettings {
    /// Tokens of a document; by default those of the model's context, at most 4096.
    pub lengths: Vec<usize>,
    /// Where the answer is, in percent of the context from its beginning; by default 0, 25, 50, 75
    /// and 100.
    pub depths: Vec<usize>,
    /// Documents of each length and depth.
    pub samples: usize,
    /// Seed of all draws.
    pub seed: u64,
}

/// A place in the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// Tokens of the document at most.
    pub length: usize,
    /// Where the answer is, in percent; `None` for tasks whose answer is spread over the context.
    pub depth: Option<usize>,
}

/// How documents were generated.
#[derive(Clone, Debug, Serialize)]
pub struct GeneratedFacts {
    /// The seed.
    pub seed: u64,
    /// Documents of each length and depth.
    pub samples: usize,
    /// The files of the haystack; none for a text that needs none.
    pub haystack: Vec<String>,
    /// Documents that hold the haystack more than once, because it is too short.
    pub repeated: usize,
}

/// One sample: a document for any amount of context.
trait Sample {
    /// The fields of a document with so many units of context, and the answer at a depth in
    /// percent.
    fn fields(&mut self, units: usize, depth: usize) -> Vec<(&'static str, Json)>;
}

impl Generator {
    /// Whether the depth of the answer is a setting.
    fn has_depth(&self) -> bool {
        !matches!(self, Self::Variables(_))
    }

    /// Whether the context is a text of the user.
    fn reads_text(&self) -> bool {
        match self {
            Self::Needles(needles) => needles.reads_text(),
            Self::Variables(_) => true,
            Self::Pairs(_) => false,
        }
    }

    fn sample<'a>(
        &self,
        seed: u64,
        sample: usize,
        haystack: Option<&'a Haystack>,
    ) -> Box<dyn Sample + 'a> {
        match self {
            Self::Needles(needles) => Box::new(needles.sample(seed, sample, haystack)),
            Self::Variables(variables) => Box::new(variables.sample(seed, sample, haystack)),
            Self::Pairs(pairs) => Box::new(pairs.sample(seed, sample)),
        }
    }

    /// What is wrong with the settings.
    pub(super) fn check(&self) -> Result<(), String> {
        let (name, count, most) = match self {
            Self::Needles(needles) => ("keys", needles.keys, needles::MOST_KEYS),
            Self::Variables(variables) => ("chains", variables.chains, variables::MOST_CHAINS),
            Self::Pairs(_) => return Ok(()),
        };
        match (1..=most).contains(&count) {
            true => Ok(()),
            false => Err(format!("`generator.{name}` is {count}, expected 1 to {most}")),
        }
    }
}

fn text(text: impl Into<String>) -> Json {
    Json::String(text.into())
}

fn texts(texts: &[String]) -> Json {
    Json::List(texts.iter().map(text).collect())
}
