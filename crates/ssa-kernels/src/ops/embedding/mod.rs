//! Token embeddings: a row of the embedding matrix per token.

mod by_id;
mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::checks::{axes, check_positive, check_rows, dtypes, same_device};
use crate::{DType, Device, KernelError, Result, Tensor};

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
/// [`KernelError::Shape`] if `weight` is not a matrix. [`KernelError::Value`] if its rows are
/// empty, if the number of ids is not B * T, or if an id is not below V; the message names its
/// position.
///
/// # Determinism
/// Exact.
///
/// # Source
/// `embed_tokens` of the Llama model.
pub fn embedding_fwd(ids: &[u32], weight: &Tensor, shape: [usize; 2]) -> Result<Tensor> {
    const OP: &str = "embedding_fwd";
    let [vocab, hidden] = axes(OP, "weight", weight, "[V, hidden]")?;
    check_positive(OP, "hidden", hidden)?;
    let [batch, tokens] = shape;
    if ids.len() != batch * tokens {
        let expected = format!("{batch} * {tokens} ids");
        return Err(KernelError::value(OP, "ids", expected, format!("{} ids", ids.len())));
    }
    check_ids(OP, ids, vocab)?;
    let mut out = Tensor::for_output_like(weight, [batch, tokens, hidden]);
    match weight.device() {
        Device::Cuda(gpu) => {
            dtypes(OP, &[("weight", weight, DType::Bf16)])?;
            cuda::forward(&gpu, ids, weight, &mut out)?;
        }
        Device::Cpu => cpu::forward(ids, weight.as_slice(), out.as_mut_slice(), hidden),
    }
    Ok(out)
}

/// Gradient with respect to the embedding matrix: `dweight[v] += sum of dout[n] over the tokens n
/// with ids[n] = v`.
///
/// # Shapes
/// `dout` `[B, T, hidden]`, `ids` N = B * T entries, `dweight` `[V, hidden]`.
///
/// # Dtypes
/// `f32`, on a GPU `dout` in `bf16`; accumulated in `f32`.
///
/// # Edge cases
/// Rows of ids that do not occur stay as they are.
///
/// # Errors
/// [`KernelError::Shape`] if `dweight` is not a matrix or `dout` does not have N rows of `hidden`
/// elements, [`KernelError::Value`] if the rows are empty or an id is not below V.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: each row is summed by one thread, in token
/// order. On a GPU too: tokens are added in order 64 at a time, and those sums in order.
pub fn embedding_bwd(dout: &Tensor, ids: &[u32], dweight: &mut Tensor) -> Result<()> {
    const OP: &str = "embedding_bwd";
    let [vocab, hidden] = axes(OP, "dweight", dweight, "[V, hidden]")?;
    check_positive(OP, "hidden", hidden)?;
    check_rows(OP, "dout", dout, ids.len(), hidden)?;
    check_ids(OP, ids, vocab)?;
    same_device(OP, dout, &[("dweight", dweight)])?;
    match dout.device() {
        Device::Cuda(gpu) => {
            dtypes(OP, &[("dout", dout, DType::Bf16), ("dweight", dweight, DType::F32)])?;
            cuda::backward(&gpu, dout, ids, dweight)?;
        }
        Device::Cpu => cpu::backward(dout.as_slice(), ids, dweight.as_mut_slice(), hidden),
    }
    Ok(())
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
