//! Attention methods and their parts, and losses and measurements that compare them.

pub mod alignment;
pub mod cached;
pub mod compression;
pub mod full;
pub mod gated_pair;
pub mod pooling;
pub mod reference;
pub mod selection;
pub mod sparse;
pub mod statistics;
pub mod window;

mod blocks;
#[cfg(test)]
mod golden;
pub(crate) mod headers;
mod mode;
mod padding;
mod shape;
pub(crate) mod tiled;

pub use mode::AttentionMode;
pub use shape::{AttentionCall, AttentionGrads, AttentionOutput};
