//! Rotary position embedding, rotate-half convention.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
mod table;
#[cfg(test)]
mod tests;
mod yarn;

use crate::contract::{Args, Axis, B, Checked, D, Sizes, T};
use crate::host_memory::listed;
use crate::{Device, KernelError, Result, Sequences, Tensor};

pub use table::{RopeScaling, RopeTable};
pub use yarn::Yarn;

/// Query or key/value heads.
const HEADS: Axis = Axis::Named("heads", Sizes::Positive);

/// Rotates every pair `(x[i], x[i + D/2])` of a head by `angle = position * inv_freq[i]`, in place:
///
/// ```text
/// x[i]       = x[i] cos(angle) - x[i + D/2] sin(angle)
/// x[i + D/2] = x[i + D/2] cos(angle) + x[i] sin(angle)          0 <= i < D/2
/// ```
///
/// The cosines and sines of a table with [`Yarn`] are multiplied by its attention factor, and so is
/// the result.
///
/// # Shapes
/// `x` `[B, T, heads, D]`, D the head dimension of `table`; `sequences` over N = B * T tokens:
/// packed documents, or sequences with their first positions.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU; the table is computed in `f64` and rounded once, to `f32`.
///
/// # Edge cases
/// A token at position 0 is not rotated. No tokens: nothing happens.
///
/// # Errors
/// [`KernelError::Argument`] if an argument does not have this shape or type, or if a position
/// is not in the table.
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU: elements are independent.
///
/// # Source
/// <https://arxiv.org/abs/2104.09864>; `rotate_half` of the released model.
pub fn rope_fwd(x: &mut Tensor, sequences: impl Into<Sequences>, table: &RopeTable) -> Result<()> {
    let sequences = sequences.into();
    let call = check("rope_fwd", "x", x, &sequences, table)?;
    rotate(&call, x, &sequences, table, Direction::Forward)
}

/// Gradient of [`rope_fwd`]: the rotation by the opposite angles, in place.
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
pub fn rope_bwd(dx: &mut Tensor, sequences: impl Into<Sequences>, table: &RopeTable) -> Result<()> {
    let sequences = sequences.into();
    let call = check("rope_bwd", "dx", dx, &sequences, table)?;
    rotate(&call, dx, &sequences, table, Direction::Backward)
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
    sequences: &Sequences,
    table: &RopeTable,
    direction: Direction,
) -> Result<()> {
    match call.device() {
        Device::Cuda(gpu) => cuda::rotate(gpu, x, sequences, table, direction.sign()),
        Device::Cpu => {
            let [heads] = call.sizes([HEADS])?;
            let positions = listed(sequences.total_tokens(), sequences.positions())?;
            cpu::rotate(x.as_mut_slice()?, heads, &positions, table, direction);
            Ok(())
        }
    }
}

fn check(
    op: &'static str,
    argument: &'static str,
    x: &Tensor,
    sequences: &Sequences,
    table: &RopeTable,
) -> Result<Checked> {
    let call = Args::new(op)
        .size("table", D, table.head_dim())
        .act(argument, x, [B, T, HEADS, D])
        .sequences(sequences)
        .check()?;
    let end = sequences.end_position();
    if end > table.positions() {
        let positions = table.positions();
        let expected = format!("at most {positions} positions, the length of the table");
        let actual = format!("a sequence of {end} positions");
        return Err(KernelError::value(op, "sequences", expected, actual));
    }
    Ok(call)
}
