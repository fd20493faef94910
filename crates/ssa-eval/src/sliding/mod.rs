//! Sliding-window perplexity by context length: how much a model gains from longer contexts, and
//! how it extrapolates beyond the length that it was trained on.
//!
//! # Definition
//! For documents of tokens `x`, a stride S and window lengths L, of which the longest is M, the
//! scored spans of a document of n tokens are
//!
//! ```text
//! [a_k, b_k),   a_k = M - S + k S,   b_k = min(a_k + S, n),   k = 0, 1, ... while a_k < n
//! ```
//!
//! The window of length L of a span is `x[a_k - (L - S) .. b_k]`: the model reads it from position
//! 0, without anything before it, and only the tokens of the span are scored. With the sums over
//! all spans of all documents,
//!
//! ```text
//! perplexity(L) = exp(-sum ln p(x_t | the window before t) / number of scored tokens)
//! ```
//!
//! The scored tokens do not depend on L, so lengths are comparable, and every scored token has at
//! least L - S tokens of context. For that, the first window of a document scores its last S tokens
//! only, like all others: scoring all of them would mix in short contexts. Documents of at most M -
//! S tokens have no span; they are counted.
//!
//! No token is added to a document: neither a beginning nor an end is read or scored.
//!
//! # Memory and time
//! Documents are held once. Besides, a call takes one window's keys and values, linear in L, and
//! the logits of a few tokens. Each span costs a forward pass over L tokens.
//!
//! # Errors
//! [`EvalError::Task`](crate::EvalError::Task) names the flag: a stride that is not shorter than
//! all windows, no document with a span, RoPE that cannot be scaled.
//!
//! # Determinism
//! On the CPU a score depends on its window alone, not on batches or threads.
//!
//! # Source
//! Strided evaluation: Press et al. 2021, section 2 (arXiv 2012.15832). Stride 256 over PG-19:
//! LongLoRA (arXiv 2309.12307) and Figure 4 of the SSA paper.

mod report;
mod results;
mod rope;
mod run;
#[cfg(test)]
mod tests;
mod text;

pub use report::{SlidingFacts, render, sliding_table};
pub use results::{SlidingPerplexity, SlidingResult};
pub use rope::{RopeMethod, RopeSettings};
pub use run::{SlidingPart, SlidingRun};
pub use text::{SlidingText, WindowSettings};
