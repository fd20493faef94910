//! Tensors, devices and the operations an SSA language model is made of.
//!
//! The set of operations is small and closed: each has an explicit forward and backward, and
//! nothing here records a tape. Models call these functions in order, keep the structs a forward
//! returns, and call the backward functions in reverse.
//!
//! # Axes
//!
//! | letter | meaning |
//! |---|---|
//! | B | rows of a batch |
//! | T | tokens of a row |
//! | N | B * T, all tokens of a batch in row order |
//! | HQ | query heads |
//! | H | key/value heads |
//! | G | HQ / H, query heads that share one key/value head |
//! | D | head dimension |
//! | C | blocks of `block_size` tokens, counted per document |
//! | K | selected blocks of one token (`block_counts`) |
//! | F | width of the feed-forward layer |
//! | V | vocabulary |
//!
//! Activations are `[B, T, heads, D]`, row-major. Query head `h * G + g` belongs to key/value head
//! `h`.
//!
//! # Contracts
//!
//! The documentation of an op states the shape and type of every argument, edge cases, errors and
//! determinism. Every op checks all of its arguments before it writes to any: see
//! [`KernelError::Argument`]. No argument makes a function of this crate panic. The functions of
//! the `reference` modules, which define results for tests, check the sizes of their slices too.
//!
//! Memory of the size of a tensor (tensors, copies, buffers between two phases of an op) is
//! reserved with [`KernelError::HostMemory`] or [`KernelError::OutOfMemory`] as the error. What a
//! call allocates besides is smaller than its arguments: the scratch of a thread for one row or
//! tile, and tables with a few bytes for each token, row or block.
//!
//! Tensors without elements are valid where they mean "no tokens": B, T, C and leading axes may be
//! 0, all other axes are at least 1 unless an op says otherwise.
//!
//! # Conventions
//!
//! * An op is a folder under [`ops`]: `mod.rs` holds its documentation, checks and dispatch,
//!   `reference.rs` the shortest correct code in `f64` (never optimized: it defines the result),
//!   `cpu.rs` the fast path.
//! * A `*_fwd` function returns new tensors. A `*_bwd` function **adds** to every gradient buffer
//!   it gets, so that gradients from several uses of a tensor, or several micro-batches, need no
//!   extra pass.
//! * On the CPU everything is `f32`. On a GPU weights, activations and their gradients are `bf16`;
//!   statistics of a row or a query (`rstd`, `lse`, gates), weight gradients and moments are `f32`.
//!   All tensors of a call are on one device.
//! * Reductions longer than one head or one row accumulate in `f64` or in blocked `f32`, as each op
//!   states.
//! * Results do not depend on the number of threads: shapes alone decide how work is split, and
//!   partial results are combined in index order.
//! * Document borders are part of every attention call: see [`Documents`].

mod contract;
mod cpu;
pub mod cuda;
mod device;
mod device_cache;
mod documents;
mod dtype;
mod error;
mod host_memory;
pub mod kv_cache;
pub mod ops;
mod scalar;
mod sequences;
mod tensor;

pub use cuda::Gpu;
pub use device::{Device, DeviceKind};
pub use documents::Documents;
pub use dtype::DType;
pub use error::{KernelError, Refusal};
pub use host_memory::allocation_is_checked;
pub use scalar::{PendingScalars, Scalar, Scalars};
pub use sequences::Sequences;
pub use tensor::Tensor;

/// Result of every fallible function in this crate.
pub type Result<T, E = KernelError> = std::result::Result<T, E>;
