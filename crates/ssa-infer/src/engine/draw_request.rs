//! What a step on a GPU is asked for.

use ssa_kernels::kv_cache::SequenceId;

use crate::Draw;

/// The next tokens of one sequence, after each of which a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrawRequest<'a> {
    /// The sequence.
    pub id: SequenceId,
    /// The tokens that come after the cached ones.
    pub ids: &'a [u32],
    /// How tokens are drawn.
    pub draw: Draw<'a>,
}
