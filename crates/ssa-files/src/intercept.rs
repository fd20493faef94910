//! Every change goes through [`perform`], so tests can hook into all of them: count them, stop the
//! process before the n-th one, or make it fail.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::FileError;
use crate::operation::Operation;

/// Called before an operation with the file or directory it is about to change. An error replaces
/// the operation.
pub type Hook = dyn Fn(Operation, &Path) -> io::Result<()> + Send + Sync;

/// All hooks, in the order they were added.
static HOOKS: RwLock<Vec<Arc<Hook>>> = RwLock::new(Vec::new());
/// Number of hooks, so that a program without hooks pays only one load.
static HOOK_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Calls `hook` before every operation of this process, until the process ends. For tests: several
/// may run in one process, so a hook should check the path.
pub fn intercept(hook: impl Fn(Operation, &Path) -> io::Result<()> + Send + Sync + 'static) {
    let mut hooks = HOOKS.write().unwrap_or_else(PoisonError::into_inner);
    hooks.push(Arc::new(hook));
    HOOK_COUNT.store(hooks.len(), Ordering::Release);
}

/// Calls the hooks before an operation.
pub(crate) fn announce(operation: Operation, path: &Path) -> io::Result<()> {
    if HOOK_COUNT.load(Ordering::Acquire) == 0 {
        return Ok(());
    }
    let hooks = HOOKS.read().unwrap_or_else(PoisonError::into_inner).clone();
    hooks.iter().try_for_each(|hook| hook(operation, path))
}

/// Performs an operation unless a hook returns an error. Errors name the operation and the path.
pub(crate) fn perform<T>(
    operation: Operation,
    path: &Path,
    action: impl FnOnce() -> io::Result<T>,
) -> Result<T, FileError> {
    announce(operation, path).and_then(|()| action()).map_err(FileError::at(operation, path))
}
