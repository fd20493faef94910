//! Element by element on whole tensors.

use super::{Gpu, Module};
use crate::{DType, Device, KernelError, Result, Tensor};

pub(super) static MODULE: Module =
    Module { name: "elementwise", source: include_str!("elementwise.cu"), variants: &[&[]] };

/// Threads of a block and elements of a thread.
const BLOCK: [usize; 2] = [256, 8];

/// `x += y` for tensors of one shape, type and GPU.
pub(crate) fn add_assign(x: &mut Tensor, y: &Tensor) -> Result<()> {
    const OP: &str = "Tensor::add_assign";
    let Device::Cuda(gpu) = x.device() else {
        return Err(KernelError::Device {
            op: OP,
            argument: "self",
            expected: "a GPU".to_owned(),
            actual: "cpu".to_owned(),
        });
    };
    if x.dtype() != y.dtype() {
        return Err(KernelError::value(OP, "other", x.dtype().to_string(), y.dtype()));
    }
    let name = match x.dtype() {
        DType::F32 => "add_assign_f32",
        DType::Bf16 => "add_assign_bf16",
        DType::I16 => return Err(KernelError::value(OP, "self", "f32 or bf16", DType::I16)),
    };
    run(&gpu, name, x, y)
}

fn run(gpu: &Gpu, name: &'static str, x: &mut Tensor, y: &Tensor) -> Result<()> {
    let len = x.len();
    let [threads, elements] = BLOCK;
    let kernel = gpu.kernel(&MODULE, name, &[])?;
    kernel.launch([len.div_ceil(threads * elements), 1, 1], threads).in_place(x).input(y).i64(len).run()
}
