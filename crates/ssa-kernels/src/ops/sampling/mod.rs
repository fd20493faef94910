//! Drawing a token from logits.
//!
//! The steps are those of transformers' `generate`, in its order
//! (`GenerationMixin._get_logits_processor`, `generation/logits_process.py`, version 5.23):
//!
//! ```text
//! repetition penalty r   l_v < 0 ? l_v r : l_v / r     for every token v of the sequence so far
//! temperature T          s_v = l_v / T
//! top-k                  keep s_v >= the k-th largest score, ties included
//! top-p                  keep the most probable tokens until their sum reaches p: in ascending
//!                        order, drop while the sum of softmax(s) is <= 1 - p
//! min-p                  keep softmax(s)_v >= min_p max softmax(s)
//! draw v with probability softmax(s)_v among the tokens kept
//! ```
//!
//! With temperature 0 the result is the token of the largest penalized logit, of equals the first.
//!
//! [`Draw::token`] is the definition, on the CPU. On a GPU a decoding step draws by the same rules
//! (`sampling.cu`, through [`StepTokens::draw`](super::step::StepTokens::draw)).
//!
//! **Determinism.** The draw is an exponential race: the token with the smallest `E_v / exp(s_v)`,
//! where `E_v` are independent exponential variables, has exactly the probabilities of the softmax.
//! `E_v` is a function of the seed, the request, the position and the token (see [`NoiseKey`]), so
//! a text depends neither on the batch nor on the order of calls. Two distributions that are close
//! draw the same token most of the time, because they share their noise; speculation relies on it.

pub(crate) mod cuda;
mod filters;
mod noise;

pub use noise::NoiseKey;

use filters::Candidate;

use crate::contract::{Args, LEADING, V};
use crate::{Device, KernelError, Tensor};

type Result<T, E = SamplingError> = std::result::Result<T, E>;

/// Why no token can be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// A setting is outside its range.
    #[error("{setting} is {actual}, expected {expected}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// The range allowed.
        expected: &'static str,
        /// The value given.
        actual: String,
    },
    /// Logits are not numbers.
    #[error(
        "the logits after {position} tokens {problem}\nhint: look for NaN and infinities in the \
         weights of the model"
    )]
    Logits {
        /// Tokens of the sequence.
        position: usize,
        /// What is wrong with them.
        problem: &'static str,
    },
}

/// What is wrong with logits that no token can be drawn from.
const NOT_A_NUMBER: &str = "have NaN";
const INFINITE: &str = "have infinity";
const ALL_LOWEST: &str = "are all negative infinity";

/// How a token is drawn from logits.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Divides the logits, from 0 to 100; 0 takes the most probable token.
    pub temperature: f64,
    /// Keep only so many tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most probable tokens until their probabilities sum to this, above 0 and at most 1.
    pub top_p: f64,
    /// Keep tokens at least this times as probable as the most probable one, from 0 to 1.
    pub min_p: f64,
    /// Makes tokens of the sequence less likely to come again, from 0.01 to 100; 1 changes nothing.
    pub repetition_penalty: f64,
}

impl SamplingOptions {
    /// The most probable token, always.
    pub const GREEDY: Self =
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 };

    /// Whether the most probable token is taken.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// [`SamplingError::Setting`] names the value.
    pub fn check(&self) -> Result<()> {
        let refuse = |setting, expected, actual: f64| {
            Err(SamplingError::Setting { setting, expected, actual: actual.to_string() })
        };
        if !(0.0..=100.0).contains(&self.temperature) {
            return refuse("temperature", "a number from 0 to 100", self.temperature);
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", "a number above 0 and at most 1", self.top_p);
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("min_p", "a number from 0 to 1", self.min_p);
        }
        if !(0.01..=100.0).contains(&self.repetition_penalty) {
            let expected = "a number from 0.01 to 100";
            return refuse("repetition_penalty", expected, self.repetition_penalty);
        }
        Ok(())
    }
}

/// Draws the tokens of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampler {
    options: SamplingOptions,
    noise: NoiseKey,
}

/// How the tokens of a request are drawn, and from which.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw<'a> {
    /// How.
    pub sampler: &'a Sampler,
    /// Only ids below are drawn: those that a tokenizer has, of a model that may have more.
    pub vocabulary: usize,
}

impl Draw<'_> {
    /// The most probable token of all.
    pub const GREEDY: Draw<'static> = Draw { sampler: &Sampler::GREEDY, vocabulary: usize::MAX };

    /// The token that follows `ids`, of which `logits` `[V]` are the model's.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn token(&self, logits: &[f32], ids: &[u32]) -> Result<u32> {
        self.sampler.sample(&logits[..self.vocabulary.min(logits.len())], ids)
    }
}

impl Sampler {
    /// The most probable token, always.
    pub const GREEDY: Self =
        Self { options: SamplingOptions::GREEDY, noise: NoiseKey { seed: 0, request: 0 } };

    /// Whether the most probable token is taken.
    pub fn is_greedy(&self) -> bool {
        self.options.is_greedy()
    }

    /// A sampler.
    ///
    /// # Errors
    /// As [`SamplingOptions::check`].
    pub fn new(options: SamplingOptions, noise: NoiseKey) -> Result<Self> {
        options.check()?;
        Ok(Self { options, noise })
    }

    /// The token that follows `ids`, of which `logits` `[V]` are the model's.
    ///
    /// # Errors
    /// [`SamplingError::Logits`] if one is NaN or positive infinity, or all are negative infinity.
    pub fn sample(&self, logits: &[f32], ids: &[u32]) -> Result<u32> {
        let position = ids.len();
        let problem = |problem| SamplingError::Logits { position, problem };
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(problem(NOT_A_NUMBER));
        }
        let penalized;
        let logits = if self.options.repetition_penalty == 1.0 {
            logits
        } else {
            penalized = penalize(logits, ids, self.options.repetition_penalty as f32);
            penalized.as_slice()
        };
        let (best, largest) = first_maximum(logits).ok_or_else(|| problem("are empty"))?;
        if largest.is_infinite() {
            return Err(problem(match largest > 0.0 {
                true => INFINITE,
                false => ALL_LOWEST,
            }));
        }
        if self.options.is_greedy() {
            return Ok(best);
        }
        let candidates = filters::candidates(logits, largest, &self.options);
        Ok(self.race(&candidates, position).unwrap_or(best))
    }

    /// The winner of the exponential race; of equals the one of the smaller id.
    fn race(&self, candidates: &[Candidate], position: usize) -> Option<u32> {
        let mut noise = self.noise.at(position as u32);
        let mut winner: Option<(f64, u32)> = None;
        for candidate in candidates {
            let (uniform, weight) = (noise.uniform(candidate.id), candidate.log_weight.exp());
            // E = -ln(1 - u) >= u: most tokens lose without a logarithm.
            if winner.is_some_and(|(time, _)| uniform > weight * time) {
                continue;
            }
            let entry = (-(-uniform).ln_1p() / weight, candidate.id);
            if winner.is_none_or(|winner| entry < winner) {
                winner = Some(entry);
            }
        }
        winner.map(|(_, id)| id)
    }
}

/// Draws a token from every row of logits: [`Draw::token`] of each row.
///
/// # Shapes
/// `logits` `[.., V]`, N rows; N `rows`, each with its draw and the tokens before the one that is
/// drawn. Returns N tokens, or what is wrong with the logits.
///
/// # Dtypes
/// `f32`; weights are `f64` and accumulate in `f64`.
///
/// # Edge cases
/// No rows: no tokens. A repetition penalty ignores ids outside V.
///
/// # Errors
/// [`KernelError::Argument`] if `logits` does not have this shape or type, for V of 0, another
/// number of `rows`, or on a GPU for V above 2,097,152. [`SamplingError::Logits`] in place of a
/// token.
///
/// # Determinism
/// A token depends on its row, its draw and its ids alone. A GPU adds weights in another order, and
/// its exponentials may differ in the last bit: a token can differ where the CPU's f64 arithmetic
/// is that close to another choice.
///
/// # Source
/// The documentation of this module.
pub fn draw_tokens(
    logits: &Tensor,
    rows: &[(Draw<'_>, &[u32])],
) -> Result<Vec<Result<u32>>, KernelError> {
    const OP: &str = "draw_tokens";
    let checked = Args::new(OP).f32("logits", logits, [LEADING, V]).check()?;
    if rows.len() != logits.rows() {
        return Err(KernelError::value(OP, "rows", logits.rows().to_string(), rows.len()));
    }
    let [vocab] = checked.sizes([V])?;
    if vocab == 0 {
        let expected = "rows of at least one logit";
        return Err(KernelError::shape(OP, "logits", expected, logits.shape()));
    }
    match checked.device() {
        Device::Cuda(gpu) => cuda::draw_tokens(OP, gpu, logits, rows),
        Device::Cpu => {
            let rows = logits.as_slice()?.chunks_exact(vocab).zip(rows);
            Ok(rows.map(|(logits, (draw, ids))| draw.token(logits, ids)).collect())
        }
    }
}

/// The first of the largest logits.
fn first_maximum(logits: &[f32]) -> Option<(u32, f32)> {
    let indexed = (0_u32..).zip(logits.iter().copied());
    indexed.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

/// The logits after the repetition penalty.
fn penalize(logits: &[f32], ids: &[u32], penalty: f32) -> Vec<f32> {
    let mut penalized = logits.to_vec();
    for &id in ids {
        // From the original logit: a token that came twice is penalized once.
        if let (Some(out), Some(&logit)) = (penalized.get_mut(id as usize), logits.get(id as usize))
        {
            *out = if logit < 0.0 { logit * penalty } else { logit / penalty };
        }
    }
    penalized
}

#[cfg(test)]
mod tests;
