//! Rotary position embedding, rotate-half convention.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
mod table;
#[cfg(test)]
mod tests;

use crate::contract::{Args, Axis, B, Checked, D, Sizes, T};
use crate::{Device, Documents, KernelError, Result, Tensor};

pub use table::{RopeScaling, RopeTable};

/// Query or key/value heads.
const HEADS: Axis = Axis::Named("heads", Sizes::Positive);

/// Rotates every pair `(x[i], x[i + D/2])` of a head by `angle = position * inv_freq[i]`, in place:
///
/// ```text
/// x[i]       = x[i] cos(angle) - x[i + D/2] sin(angle)
/// x[i + D/2] = x[i + D/2] cos(angle) + x[i] sin(angle)          0 <= i < D/2
/// ```
///
/// # Shapes
/// `x` `[B, T, heads, D]`, D the head dimension of `table`; `documents` over N = B * T tokens.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU; the table is computed in `f64` and rounded once, to `f32`.
///
/// # Edge cases
/// Positions restart at each document, whose first token is not rotated. No tokens: nothing
/// happens.
///
/// # Errors
/// [`KernelError::Argument`] if an argument does not have this shape or type, or if a document is
/// longer than the table.
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU: elements are independent.
///
/// # Source
/// <https://arxiv.org/abs/2104.09864>; `rotate_half` of the released model.
pub fn rope_fwd(x: &mut Tensor, documents: &Documents, table: &RopeTable) -> Result<()> {
    let call = check("rope_fwd", "x", x, documents, table)?;
    rotate(&call, x, documents, table, Direction::Forward)
}

/// Gradient of [`rope_fwd`]: the inverse rotation, in place.
///
/// The exception to the rule that a backward adds: the rotation overwrites its one input, so its
/// gradient overwrites the gradient of its output.
///
/// # Shapes
/// As [`rope_fwd`], with `dx` for `x`.
///
/// # Dtypes
/// As [`rope_fwd`].
///
/// # Edge cases
/// As [`rope_fwd`].
///
/// # Errors
/// As [`rope_fwd`].
///
/// # Determinism
/// As [`rope_fwd`].
///
/// # Source
/// As [`rope_fwd`].
pub fn rope_bwd(dx: &mut Tensor, documents: &Documents, table: &RopeTable) -> Result<()> {
    let call = check("rope_bwd", "dx", dx, documents, table)?;
    rotate(&call, dx, documents, table, Direction::Backward)
}

/// The sign of the angles.
#[derive(Clone, Copy)]
enum Direction {
    Forward,
    Backward,
}

impl Direction {
    fn sign(self) -> f32 {
        match self {
            Self::Forward => 1.0,
            Self::Backward => -1.0,
        }
    }
}

fn rotate(
    call: &Checked,
    x: &mut Tensor,
    documents: &Documents,
    table: &RopeTable,
    direction: Direction,
) -> Result<()> {
    match call.device() {
        Device::Cuda(gpu) => cuda::rotate(gpu, x, documents, table, direction.sign()),
        Device::Cpu => {
            let [heads] = call.sizes([HEADS])?;
            let positions = documents.positions();
            cpu::rotate(x.as_mut_slice()?, heads, &positions, table, direction);
            Ok(())
        }
    }
}

fn check(
    op: &'static str,
    argument: &'static str,
    x: &Tensor,
    documents: &Documents,
    table: &RopeTable,
) -> Result<Checked> {
    let call = Args::new(op)
        .size("table", D, table.head_dim())
        .act(argument, x, [B, T, HEADS, D])
        .documents(documents)
        .check()?;
    let longest = documents.longest();
    if longest > table.positions() {
        let positions = table.positions();
        let expected = format!("at most {positions} tokens per document, the length of the table");
        let actual = format!("a document of {longest} tokens");
        return Err(KernelError::value(op, "documents", expected, actual));
    }
    Ok(call)
}
