//! Block selection: which blocks of keys each token attends to.

mod block_indices;

pub use block_indices::BlockIndices;
