//! The checks, one file per op.

pub(crate) mod adamw;
pub(crate) mod alignment;
pub(crate) mod attention;
pub(crate) mod bias;
pub(crate) mod cached;
pub(crate) mod cross_entropy;
pub(crate) mod embedding;
pub(crate) mod gate;
pub(crate) mod gated_pair;
pub(crate) mod grad_norm;
pub(crate) mod linear;
pub(crate) mod linear_rows;
pub(crate) mod pooling;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod sampling;
pub(crate) mod selection;
pub(crate) mod sparse;
pub(crate) mod statistics;
pub(crate) mod streams;
pub(crate) mod swiglu;
pub(crate) mod tensor;
