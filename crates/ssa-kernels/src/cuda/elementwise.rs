//! Whole tensors element by element, and sums of partial results.

use super::{Buffer, Gpu, Module};
use crate::{DType, Device, KernelError, Result, Scalar, Tensor};

pub(super) static MODULE: Module =
    Module { name: "elementwise", source: include_str!("elementwise.cu"), variants: &[&[]] };

/// Threads of a block of every kernel that goes over elements by `for_each_piece`.
pub(crate) const THREADS: usize = 256;

/// The grid of such a kernel: a thread for every eight of `len` elements.
pub(crate) fn grid(len: usize) -> [usize; 3] {
    [len.div_ceil(8 * THREADS), 1, 1]
}

/// `x += y` for tensors of one shape, type and GPU.
pub(crate) fn add_assign(x: &mut Tensor, y: &Tensor) -> Result<()> {
    const OP: &str = "Tensor::add_assign";
    let Device::Cuda(gpu) = x.device() else {
        return Err(KernelError::device(OP, "self", "a GPU", Device::Cpu));
    };
    let name = match x.dtype() {
        DType::F32 => "add_assign_f32",
        DType::Bf16 => "add_assign_bf16",
        DType::I16 => return Err(KernelError::value(OP, "self", "f32 or bf16", DType::I16)),
    };
    let len = x.len();
    gpu.kernel(&MODULE, name, &[])?.launch(grid(len), THREADS).in_place(x).input(y).i64(len).run()
}

/// A copy of `x` on the GPU in another floating-point type; None unless `x` lies there and both
/// types are such.
pub(crate) fn converted(gpu: &Gpu, x: &Tensor, dtype: DType) -> Result<Option<Tensor>> {
    let device = Device::Cuda(gpu.clone());
    let name = match (x.dtype(), dtype) {
        (DType::F32, DType::Bf16) if x.device() == device => "f32_to_bf16",
        (DType::Bf16, DType::F32) if x.device() == device => "bf16_to_f32",
        _ => return Ok(None),
    };
    let (len, mut out) = (x.len(), Tensor::for_output_on(&device, dtype, x.shape())?);
    gpu.kernel(&MODULE, name, &[])?
        .launch(grid(len), THREADS)
        .input(x)
        .output(&mut out)
        .i64(len)
        .run()?;
    Ok(Some(out))
}

/// `x` with rows of another length: longer ones end in zeros, shorter ones are the beginning.
pub(crate) fn resized_rows(gpu: &Gpu, x: &Tensor, row: usize) -> Result<Tensor> {
    let name = match x.dtype() {
        DType::F32 => "resize_rows_f32",
        DType::Bf16 => "resize_rows_bf16",
        DType::I16 => {
            return Err(KernelError::value("resized_rows", "x", "f32 or bf16", DType::I16));
        }
    };
    let mut shape = x.shape().to_vec();
    let from = shape.pop().unwrap_or(1);
    shape.push(row);
    let mut out = Tensor::for_output_like(x, shape)?;
    let len = out.len();
    gpu.kernel(&MODULE, name, &[])?
        .launch([len.div_ceil(THREADS), 1, 1], THREADS)
        .input(x)
        .output(&mut out)
        .i32(from)
        .i32(row)
        .i64(len)
        .run()?;
    Ok(out)
}

/// `factor` times the sum of the first `len` values (`f64`) of a buffer, in an order that depends
/// on `len` alone.
pub(crate) fn sum(gpu: &Gpu, values: &Buffer, len: usize, factor: f64) -> Result<Scalar> {
    const SUM_THREADS: usize = 1024;
    let mut total = gpu.alloc::<f64>(1)?;
    let kernel = gpu.kernel(&MODULE, "sum_f64", &[])?;
    let launch = kernel.launch([1, 1, 1], SUM_THREADS).buffer(values).i64(len).f64(factor);
    launch.buffer_mut(&mut total).run()?;
    Ok(Scalar::on_gpu(total))
}
