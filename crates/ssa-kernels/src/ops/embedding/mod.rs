//! Token embeddings: a row of the embedding matrix per token.

mod by_id;
mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::contract::{Args, B, HIDDEN, LEADING, T, V};
use crate::{Device, Documents, KernelError, Result, Tensor};

/// `out[b, t] = weight[ids[b * T + t]]`.
///
/// # Shapes
/// `ids` N = B * T entries, `weight` `[V, hidden]`, `shape` `[B, T]`; returns `[B, T, hidden]`.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU, copied.
///
/// # Edge cases
/// No tokens: an empty result.
///
/// # Errors
/// [`KernelError::Argument`] if an argument does not have this shape or type, or if an id is not
/// below V; the message names its position.
///
/// # Determinism
/// Exact.
///
/// # Source
/// `embed_tokens` of the Llama model.
pub fn embedding_fwd(ids: &[u32], weight: &Tensor, shape: [usize; 2]) -> Result<Tensor> {
    const OP: &str = "embedding_fwd";
    let call = Args::new(OP)
        .act("weight", weight, [V, HIDDEN])
        .size("shape", B, shape[0])
        .size("shape", T, shape[1])
        .entries("ids", ids.len(), "ids", [B, T])
        .check()?;
    let [vocab, hidden] = call.sizes([V, HIDDEN])?;
    check_ids(OP, ids, vocab)?;
    let mut out = call.new_act([B, T, HIDDEN])?;
    match call.device() {
        Device::Cuda(gpu) => cuda::forward(gpu, ids, weight, &mut out)?,
        Device::Cpu => cpu::forward(ids, weight.as_slice()?, out.as_mut_slice()?, hidden),
    }
    Ok(out)
}

/// Gradient with respect to the embedding matrix: `dweight[v] += sum of dout[n] over the tokens n
/// with ids[n] = v`.
///
/// # Shapes
/// `dout` `[.., hidden]` with N rows, `ids` N entries, `dweight` `[V, hidden]`.
///
/// # Dtypes
/// `f32`; on a GPU `dout` is `bf16` and `dweight` is `f32`. Accumulated in `f32`.
///
/// # Edge cases
/// Rows of ids that do not occur stay as they are.
///
/// # Errors
/// As [`embedding_fwd`], and if N is more than [`Documents::MAX_TOKENS`].
///
/// # Determinism
/// Bitwise reproducible for any number of threads: one thread sums each row, in token order. On a
/// GPU bitwise reproducible: the order of the sums follows from the ids.
///
/// # Source
/// As [`embedding_fwd`].
pub fn embedding_bwd(dout: &Tensor, ids: &[u32], dweight: &mut Tensor) -> Result<()> {
    const OP: &str = "embedding_bwd";
    let call = Args::new(OP)
        .act("dout", dout, [LEADING, HIDDEN])
        .entries("ids", ids.len(), "ids", [LEADING])
        .f32("dweight", dweight, [V, HIDDEN])
        .check()?;
    let [vocab, hidden] = call.sizes([V, HIDDEN])?;
    check_tokens(OP, ids.len())?;
    check_ids(OP, ids, vocab)?;
    match call.device() {
        Device::Cuda(gpu) => cuda::backward(gpu, dout, ids, dweight)?,
        Device::Cpu => cpu::backward(dout.as_slice()?, ids, dweight.as_mut_slice()?, hidden)?,
    }
    Ok(())
}

/// Tokens are sorted by 32-bit numbers.
fn check_tokens(op: &'static str, tokens: usize) -> Result<()> {
    if tokens <= Documents::MAX_TOKENS {
        return Ok(());
    }
    Err(KernelError::value(op, "ids", format!("at most {} ids", Documents::MAX_TOKENS), tokens))
}

fn check_ids(op: &'static str, ids: &[u32], vocab: usize) -> Result<()> {
    match ids.iter().enumerate().find(|(_, id)| **id as usize >= vocab) {
        None => Ok(()),
        Some((position, id)) => {
            let expected = format!("ids below the vocabulary size {vocab}");
            Err(KernelError::value(op, "ids", expected, format!("{id} at position {position}")))
        }
    }
}
