//! The NVIDIA GPU: the only home of foreign functions in this crate.
//!
//! Three libraries are loaded when a GPU is opened, never at build time: the driver (`libcuda`),
//! the run-time compiler (NVRTC) and matrix products (`cublasLt`); a fourth, NCCL, when several
//! GPUs are connected. A program without them starts and runs on the CPU; each missing one has its
//! own message ([`Library`]).
//!
//! * [`Gpu`] is an opened device with one stream: its work runs in the order in which it was
//!   queued. [`Gpu::with_stream`] opens further streams, [`Event`] orders them.
//! * `Memory` is device memory with one owner, from the driver's pool, where allocating and freeing
//!   take microseconds; `Buffer` is memory for elements of one type.
//! * [`Module`] is the source of some kernels with its headers, compiled for the card and kept in
//!   memory and on disk ([`KernelCache`]).
//! * [`Recording`] is queued work as a graph that is launched again and again.
//! * `kernel!` declares the parameters of a kernel for both sides; `Gpu::launch` queues one.
//! * `matmul` is the matrix product.
//! * [`Communicator`] exchanges parts of tensors with the GPUs of other ranks.
//!
//! # Safety
//! Launching a kernel is as unsafe as the kernel: it may write anywhere. The sources are part of
//! this crate and are held to the rules of an unsafe block: a kernel touches the memory that its
//! parameters point to, inside the sizes that they give, and nothing else. The functions of ops
//! that launch them check all shapes first.

#![allow(unsafe_code)]

mod buffer;
mod cache;
mod compile;
pub(crate) mod elementwise;
mod event;
mod gpu;
mod kernel;
mod launch;
pub(crate) mod library;
pub(crate) mod matmul;
mod module;
mod nccl;
mod page_locked;
mod parameters;
mod properties;
mod readback;
mod recording;
mod row_layout;
mod staging;

pub(crate) use buffer::{Buffer, Memory};
pub use cache::KernelCache;
pub use compile::{CompiledModule, KernelReport, compile_all};
pub use event::{Event, Stopwatch};
pub use gpu::{Gpu, MemoryUse};
pub(crate) use kernel::Kernel;
pub use kernel::KernelTimes;
pub(crate) use launch::Launch;
pub use library::{Library, LibraryFile, LibraryStatus};
pub use module::Module;
#[cfg(test)]
pub(crate) use module::PARAMS;
pub(crate) use module::{COMMON, DEPENDENT_LAUNCH, Define, Header, constants};
pub use nccl::{Communicator, Transfer, UniqueId};
pub(crate) use parameters::{
    DeviceStruct, Element, Field, Gradient, Input, Output, Parameters, TemplateParameter,
    declaration, device_struct, int, kernel, parameter_group, shared_struct, structs,
};
pub use properties::{GpuProperties, count, properties};
pub(crate) use readback::Readback;
pub use recording::Recording;
pub(crate) use row_layout::{RowLayout, WARP};
