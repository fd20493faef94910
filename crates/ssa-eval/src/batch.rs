//! What is evaluated.

use ssa_model::Input;

/// Some rows of held-out text: they run through the model together.
#[derive(Clone, Debug)]
pub struct EvalBatch {
    /// The tokens.
    pub input: Input,
    /// The token that follows each token, or [`IGNORE_INDEX`](ssa_kernels::ops::cross_entropy::IGNORE_INDEX).
    pub labels: Vec<i32>,
    /// Bytes of text the labels cover.
    pub bytes: usize,
}
