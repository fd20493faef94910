//! Decoding steps on a GPU: a few tokens of each of some sequences, without a word from the host.
//!
//! A step computes what the ops over a [`KvCache`](crate::kv_cache::KvCache) compute for the last
//! tokens of each sequence, by fewer kernels, each of which starts while the one before it ends.
//! Most steps have one token of each sequence; those that check drafts have more.
//! Everything that changes from step to step is in memory of the device: the tokens, their
//! positions, the pages of their sequences. So a step can be [recorded](crate::cuda::Recording) and
//! replayed, and the host reads results when it wants to.
//!
//! [`StepTokens`] is that memory. Its methods are the parts of a step, which write to tensors that
//! the caller owns. The result for a token does not depend on the other tokens of the step.

mod parts;
mod tokens;

pub use crate::ops::attention::cached::cuda::HeadMaps;
pub use parts::{StepAttention, StepGates, StepKeys, StepOutput, StepScratch, StepSelections};
pub(crate) use tokens::MODULE;
pub use tokens::{DrawnTokens, StepSequence, StepSizes, StepTokens};
