//! The checks, one file per op.

pub(crate) mod attention;
pub(crate) mod linear;
