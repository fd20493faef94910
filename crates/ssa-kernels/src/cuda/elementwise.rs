//! Whole buffers element by element, and sums of partial results.

use half::bf16;

use super::module::{Module, constants};
use super::parameters::{Input, Output, Parameters, int, kernel, structs};
use super::{Buffer, Gpu, Launch};
use crate::Result;

pub(crate) static MODULE: Module = Module {
    name: "elementwise",
    source: include_str!("elementwise.cu"),
    headers: &[],
    constants: constants![THREADS, SUM_THREADS],
    structs: structs![AddAssign<f32>, ToBf16, ToF32, ResizeRows<f32>, Sum],
    variants: &[&[]],
};

/// Threads of a block of every kernel that visits elements by `for_each_piece`.
pub(crate) const THREADS: usize = 256;

/// Threads of the block that sums.
const SUM_THREADS: usize = 1024;

impl Gpu {
    /// Queues such a kernel: a thread for every eight of `len` elements. `parameters` gets `len` as
    /// the kernel takes it.
    ///
    /// # Errors
    /// Those of `parameters` and of [`Gpu::launch`].
    pub(crate) fn launch_pieces<P: Parameters>(
        &self,
        len: usize,
        parameters: impl FnOnce(i64) -> Result<P>,
    ) -> Result<()> {
        let launch = Launch::new([len.div_ceil(8 * THREADS), 1, 1], THREADS);
        self.launch(launch, parameters(len as i64)?)
    }
}

kernel! {
    /// `x += other`.
    "add_assign_f32" for f32, "add_assign_bf16" for bf16 in MODULE:
    pub(crate) struct AddAssign<'a, T> {
        pub(crate) x: Output<'a, T>,
        pub(crate) other: Input<'a, T>,
        pub(crate) len: i64,
    }
}

kernel! {
    /// `out = x`, rounded to the nearest.
    "f32_to_bf16" in MODULE:
    pub(crate) struct ToBf16<'a> {
        pub(crate) x: Input<'a, f32>,
        pub(crate) out: Output<'a, bf16>,
        pub(crate) len: i64,
    }
}

kernel! {
    /// `out = x`, exactly.
    "bf16_to_f32" in MODULE:
    pub(crate) struct ToF32<'a> {
        pub(crate) x: Input<'a, bf16>,
        pub(crate) out: Output<'a, f32>,
        pub(crate) len: i64,
    }
}

kernel! {
    /// Rows of `to` elements from rows of `from`; `len` elements of `out`.
    "resize_rows_f32" for f32, "resize_rows_bf16" for bf16 in MODULE:
    pub(crate) struct ResizeRows<'a, T> {
        x: Input<'a, T>,
        out: Output<'a, T>,
        from: i32,
        to: i32,
        len: i64,
    }
}

kernel! {
    /// `out = factor * sum of the first len elements of x`.
    "sum_f64" in MODULE:
    struct Sum<'a> {
        x: Input<'a, f64>,
        out: Output<'a, f64>,
        factor: f64,
        len: i64,
    }
}

/// Writes rows of `to` elements from rows of `from`: their beginning, or all of them and zeros.
/// `len` elements of `out`.
pub(crate) fn resize_rows<T>(
    gpu: &Gpu,
    x: Input<'_, T>,
    out: Output<'_, T>,
    [from, to]: [usize; 2],
    len: usize,
) -> Result<()>
where
    for<'a> ResizeRows<'a, T>: Parameters,
{
    let launch = Launch::new([len.div_ceil(THREADS), 1, 1], THREADS);
    let [from, to] = [int("from", from)?, int("to", to)?];
    gpu.launch(launch, ResizeRows { x, out, from, to, len: len as i64 })
}

/// `factor` times the sum of all values of a buffer, in an order that depends on their number
/// alone.
pub(crate) fn sum(gpu: &Gpu, values: &Buffer<f64>, factor: f64) -> Result<Buffer<f64>> {
    let mut total = gpu.alloc(1)?;
    let (out, len) = (total.output(), values.len() as i64);
    let launch = Launch::new([1, 1, 1], SUM_THREADS);
    gpu.launch(launch, Sum { x: values.input(), out, factor, len })?;
    Ok(total)
}
