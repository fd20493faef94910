//! The checks, one file per op.

pub(crate) mod attention;
pub(crate) mod full_and_sparse;
pub(crate) mod linear;
