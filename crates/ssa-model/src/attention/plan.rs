//! Which attentions a layer computes: the only place where the four methods differ.

use ssa_kernels::ops::gate::GateBranch;

use crate::{AttentionMode, Method, ModelError, Result};

/// One kind of attention over the same q, k and v.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttentionKind {
    /// Over all earlier tokens.
    Full,
    /// Over the tokens of the selected blocks.
    Sparse,
    /// Over the means of complete blocks.
    Compression,
    /// Over the last `window_size` tokens.
    Window,
}

impl AttentionKind {
    /// The rows of `g_proj` that gate this attention: full and sparse share theirs.
    pub(crate) fn gate(self) -> GateBranch {
        match self {
            Self::Full | Self::Sparse => GateBranch::Selection,
            Self::Compression => GateBranch::Compression,
            Self::Window => GateBranch::Window,
        }
    }
}

/// An attention that a layer computes, and whether its gated output goes on to the next layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedAttention {
    pub(crate) kind: AttentionKind,
    pub(crate) contributes: bool,
}

/// What a layer computes at inference, and in training for every method but ssa.
pub(crate) fn single_stream(method: Method, mode: AttentionMode) -> Result<Vec<PlannedAttention>> {
    use AttentionKind::{Compression, Full, Sparse, Window};
    let kinds: &[AttentionKind] = match (method, mode) {
        (Method::Nsa, AttentionMode::Sparse) => &[Compression, Sparse, Window],
        (Method::Nsa, AttentionMode::Full) => {
            return Err(ModelError::Options {
                message: "method nsa has no full attention; use attention mode sparse".to_owned(),
            });
        }
        (_, AttentionMode::Full) => &[Full],
        (_, AttentionMode::Sparse) => &[Sparse],
    };
    Ok(kinds.iter().map(|&kind| PlannedAttention { kind, contributes: true }).collect())
}

/// What a layer computes in a training step whose coin fell on `stream`.
pub(crate) fn training(method: Method, stream: AttentionMode) -> Result<Vec<PlannedAttention>> {
    if method != Method::Ssa {
        return single_stream(method, stream);
    }
    let attention = |kind, mode| PlannedAttention { kind, contributes: stream == mode };
    Ok(vec![
        attention(AttentionKind::Full, AttentionMode::Full),
        attention(AttentionKind::Sparse, AttentionMode::Sparse),
    ])
}
