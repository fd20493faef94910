//! Tiles of queries against tiles of keys on the CPU, each a matrix product.
//!
//! A row of a query tile is one query head at one token, so that the G heads that share a key/value
//! head share every product with it. `README.md` in the parent folder derives both passes.

mod backward;
mod forward;
mod tiles;

pub(super) use backward::{Upstream, backward};
pub(super) use forward::forward;

use super::{TiledAttention, Visibility};
use crate::ops::attention::shape::AttentionShape;
use crate::{Documents, Result};

/// A [`TiledAttention`] whose tensors are on the CPU.
pub(super) struct TiledSlices<'a> {
    /// `[N, HQ, D]`.
    q: &'a [f32],
    /// `[keys, H, D]`.
    k: &'a [f32],
    /// `[keys, H, D]`.
    v: &'a [f32],
    documents: &'a Documents,
    visibility: Visibility,
    softmax_scale: f32,
    shape: AttentionShape,
}

impl<'a> TiledSlices<'a> {
    /// # Errors
    /// A tensor is not on the CPU.
    pub(super) fn new(call: &TiledAttention<'a>) -> Result<Self> {
        let &TiledAttention { q, k, v, sequences, visibility, softmax_scale, shape, .. } = call;
        let documents = sequences.queries();
        let [q, k, v] = [q.as_slice()?, k.as_slice()?, v.as_slice()?];
        Ok(Self { q, k, v, documents, visibility, softmax_scale, shape })
    }
}
