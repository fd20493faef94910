//! All kernels of the crate.

use super::Module;

/// Every module, for checks that compile all of them.
pub(super) static ALL: &[&Module] = &[&super::elementwise::MODULE];
