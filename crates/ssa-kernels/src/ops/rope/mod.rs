//! Rotary position embedding, rotate-half convention.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
mod table;
#[cfg(test)]
mod tests;

use crate::checks::{axes, check_positive, dtypes};
use crate::{DType, Device, Documents, KernelError, Result, Tensor};

pub use table::{RopeScaling, RopeTable};

/// Rotates every pair `(x[i], x[i + D/2])` of a head by `angle = position * inv_freq[i]`, in place:
///
/// ```text
/// x[i]       = x[i] cos(angle) - x[i + D/2] sin(angle)
/// x[i + D/2] = x[i + D/2] cos(angle) + x[i] sin(angle)          0 <= i < D/2
/// ```
///
/// # Shapes
/// `x` `[B, T, heads, D]`; `documents` covers N = B * T tokens.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU; the table is computed in `f64` and rounded once, to `f32`.
///
/// # Edge cases
/// Positions restart at each document, whose first token is not rotated.
///
/// # Errors
/// [`KernelError::Shape`] if `x` does not have four axes or its heads are not as long as the
/// table's, [`KernelError::Value`] if there are no heads, if `documents` covers another number of
/// tokens, or if a document is longer than the table.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: elements are independent.
///
/// # Source
/// <https://arxiv.org/abs/2104.09864>; `rotate_half` of the released model.
pub fn rope_fwd(x: &mut Tensor, documents: &Documents, table: &RopeTable) -> Result<()> {
    check("rope_fwd", "x", x, documents, table)?;
    match x.device() {
        Device::Cuda(gpu) => {
            dtypes("rope_fwd", &[("x", x, DType::Bf16)])?;
            cuda::rotate(&gpu, x, documents, table, 1.0)?;
        }
        Device::Cpu => cpu::rotate(x, &documents.positions(), table, cpu::Direction::Forward),
    }
    Ok(())
}

/// Gradient of [`rope_fwd`]: the inverse rotation, in place.
///
/// The exception to the rule that a backward adds: the rotation has one input and overwrites it, so
/// its gradient overwrites the gradient of its output.
///
/// # Shapes
/// As [`rope_fwd`], with `dx` for `x`.
///
/// # Dtypes
/// As [`rope_fwd`].
///
/// # Errors
/// As [`rope_fwd`].
///
/// # Determinism
/// As [`rope_fwd`].
pub fn rope_bwd(dx: &mut Tensor, documents: &Documents, table: &RopeTable) -> Result<()> {
    check("rope_bwd", "dx", dx, documents, table)?;
    match dx.device() {
        Device::Cuda(gpu) => {
            dtypes("rope_bwd", &[("dx", dx, DType::Bf16)])?;
            cuda::rotate(&gpu, dx, documents, table, -1.0)?;
        }
        Device::Cpu => cpu::rotate(dx, &documents.positions(), table, cpu::Direction::Backward),
    }
    Ok(())
}

fn check(
    op: &'static str,
    argument: &'static str,
    x: &Tensor,
    documents: &Documents,
    table: &RopeTable,
) -> Result<()> {
    let expected = format!("[B, T, heads, {}]", table.head_dim());
    let [batch, tokens, heads, head_dim] = axes(op, argument, x, &expected)?;
    if head_dim != table.head_dim() {
        return Err(KernelError::shape(op, argument, expected, x.shape()));
    }
    check_positive(op, "heads", heads)?;
    if documents.total_tokens() != batch * tokens {
        let expected = format!("{} tokens, as in `{argument}`", batch * tokens);
        let actual = format!("{} tokens", documents.total_tokens());
        return Err(KernelError::value(op, "documents", expected, actual));
    }
    let longest = documents.ranges().map(|range| range.len()).max().unwrap_or(0);
    if longest > table.positions() {
        let expected =
            format!("at most {} tokens per document, the length of the table", table.positions());
        return Err(KernelError::value(
            op,
            "documents",
            expected,
            format!("a document of {longest} tokens"),
        ));
    }
    Ok(())
}
