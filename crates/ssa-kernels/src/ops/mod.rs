//! The operations, one folder each.

pub mod adamw;
mod add;
pub mod attention;
pub mod bias;
pub mod cross_entropy;
pub mod embedding;
pub mod gate;
pub mod grad_norm;
pub mod linear;
mod modules;
pub mod rms_norm;
pub mod rope;
pub mod sampling;
pub mod step;
pub mod swiglu;

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
pub(crate) mod testing;

pub use modules::MODULES;
