//! All kernels of the crate.

use super::Module;
use crate::ops::attention::tiled::cuda as tiled;

/// Every module, for checks that compile all of them.
pub(super) static ALL: &[&Module] = &[
    &super::elementwise::MODULE,
    &tiled::FORWARD,
    &tiled::FORWARD_SM90,
    &tiled::QUERIES,
    &tiled::QUERIES_SM90,
    &tiled::KEYS,
    &tiled::KEYS_SM90,
    &tiled::GRADIENTS,
];
