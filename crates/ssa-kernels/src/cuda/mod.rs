//! The NVIDIA GPU: the only home of foreign functions in this crate.
//!
//! Three libraries are looked up when a GPU is opened, never at build time: the driver (`libcuda`),
//! the run-time compiler (NVRTC) and the matrix products (`cublasLt`). A program without them
//! starts and runs on the CPU; each that is missing has its own message ([`Library`]).
//!
//! * [`Gpu`] is an opened device with one stream: everything on it runs in the order it was asked
//!   for.
//! * `Buffer` is device memory of one owner, from the driver's pool: taking and giving back costs
//!   microseconds.
//! * `Module` is the source of some kernels; `Kernel` is one of them compiled for the card found,
//!   kept in memory and on disk ([`KernelCache`]).
//! * `matmul` is the matrix product.
//!
//! # Safety
//! Launching a kernel is as unsafe as the kernel: it may write anywhere. The sources are part of
//! this crate and are held to the rules of an unsafe block: a kernel touches the buffers it is
//! given, inside the sizes it is given, and nothing else. The functions of ops that launch them
//! check all shapes first.

#![allow(unsafe_code)]

mod buffer;
mod cache;
mod compile;
pub(crate) mod elementwise;
mod event;
mod gpu;
mod launch;
pub(crate) mod library;
pub(crate) mod matmul;
mod modules;
mod page_locked;
mod properties;
mod readback;

pub(crate) use buffer::Buffer;
pub use cache::KernelCache;
pub use compile::{CompiledModule, compile_all};
pub use event::Stopwatch;
pub use gpu::{Gpu, KernelTimes, MemoryUse};
pub(crate) use launch::Kernel;
pub use library::{Library, LibraryStatus};
pub use properties::{GpuProperties, count, properties};
pub(crate) use readback::Readback;

/// The source of some kernels.
#[derive(Debug)]
pub(crate) struct Module {
    /// Name in messages and of the source file.
    pub(crate) name: &'static str,
    /// CUDA C++.
    pub(crate) source: &'static str,
    /// Sets of `-D` macros that are compiled ahead: what tests check for errors and spilled
    /// registers.
    pub(crate) variants: &'static [&'static [(&'static str, i64)]],
}

/// Headers that every module can include.
const HEADERS: [(&str, &str); 11] = [
    ("alignment.cuh", include_str!("include/alignment.cuh")),
    ("attention.cuh", include_str!("include/attention.cuh")),
    ("attention_sm90.cuh", include_str!("include/attention_sm90.cuh")),
    ("common.cuh", include_str!("include/common.cuh")),
    ("key_tile.cuh", include_str!("include/key_tile.cuh")),
    ("mma.cuh", include_str!("include/mma.cuh")),
    ("pair.cuh", include_str!("include/pair.cuh")),
    ("query_tile.cuh", include_str!("include/query_tile.cuh")),
    ("rows.cuh", include_str!("include/rows.cuh")),
    ("selected_keys.cuh", include_str!("include/selected_keys.cuh")),
    ("wgmma.cuh", include_str!("include/wgmma.cuh")),
];
