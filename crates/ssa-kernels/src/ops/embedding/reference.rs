//! `f64` definition of the embedding.

use super::check_ids;
use crate::contract::{Args, HIDDEN, N, V};
use crate::host_memory::zeros;
use crate::{KernelError, Result};

/// `out[n] = weight[ids[n]]`.
///
/// # Errors
/// [`KernelError::Argument`] for sizes that do not fit and ids that the matrix does not have.
pub fn forward(ids: &[u32], weight: &[f64], hidden: usize) -> Result<Vec<f64>> {
    const OP: &str = "embedding::reference::forward";
    let args = Args::new(OP).size("hidden", HIDDEN, hidden);
    let [vocab] = args.numbers("weight", weight, [V, HIDDEN]).check()?.sizes([V])?;
    check_ids(OP, ids, vocab)?;
    Ok(ids.iter().flat_map(|&id| &weight[id as usize * hidden..][..hidden]).copied().collect())
}

/// Gradient of the embedding matrix of `vocab` rows for an upstream gradient `dout`.
///
/// # Errors
/// As [`forward`], and [`KernelError::HostMemory`].
pub fn backward(dout: &[f64], ids: &[u32], vocab: usize, hidden: usize) -> Result<Vec<f64>> {
    const OP: &str = "embedding::reference::backward";
    Args::new(OP)
        .size("hidden", HIDDEN, hidden)
        .entries("ids", ids.len(), "ids", [N])
        .numbers("dout", dout, [N, HIDDEN])
        .check()?;
    check_ids(OP, ids, vocab)?;
    let len = vocab.checked_mul(hidden);
    let too_large = || KernelError::value(OP, "vocab", "a matrix that memory can hold", vocab);
    let mut dweight = zeros(len.ok_or_else(too_large)?)?;
    for (dout, &id) in dout.chunks(hidden).zip(ids) {
        for (dweight, dout) in dweight[id as usize * hidden..].iter_mut().zip(dout) {
            *dweight += dout;
        }
    }
    Ok(dweight)
}
