//! The checks, one file per op.

pub(crate) mod linear;
pub(crate) mod pooling;
pub(crate) mod selection;
pub(crate) mod sparse;
