//! Bytes between GPUs through NCCL, for the ranks of a run.
//!
//! NCCL only moves: sums are made by our own kernels in a fixed order. So results do not depend on
//! its version, its algorithms or the topology.
//!
//! * `functions` is the part of NCCL that is used, loaded at run time like the other libraries.
//! * [`Communicator`] is this GPU among those of all ranks. Its calls are polled until they
//!   are queued, with a deadline, and its work until it is done or another rank has ended.

mod communicator;
mod functions;

pub use communicator::{Communicator, Transfer, UniqueId};
pub(super) use functions::Functions;
