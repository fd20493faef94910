//! The checks, one file per op.

pub(crate) mod linear;
