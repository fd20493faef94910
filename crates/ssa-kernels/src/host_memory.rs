//! Memory on the CPU whose size follows from the arguments of a call: if the system does not have
//! it, the call returns an error, where a plain `Vec` would end the process.

use std::cell::Cell;

use crate::{KernelError, Result};

thread_local! {
    static IS_CHECKED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a failed allocation of this thread becomes an error. If not, the standard library aborts
/// the program, unless a global allocator ends it in another way.
pub fn allocation_is_checked() -> bool {
    IS_CHECKED.get()
}

/// An empty list with room for `len` elements.
///
/// # Errors
/// [`KernelError::HostMemory`].
pub(crate) fn reserved<T>(len: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    IS_CHECKED.set(true);
    let reserved = values.try_reserve_exact(len);
    IS_CHECKED.set(false);
    let bytes = len.saturating_mul(size_of::<T>());
    reserved.map_err(|_| KernelError::HostMemory { bytes })?;
    Ok(values)
}

/// `len` elements that are all zero.
///
/// # Errors
/// As [`reserved`].
pub(crate) fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>> {
    // The compiler may not assume that the reservation succeeds. `vec!` then gets pages from the
    // system that are zero already, and writes none.
    drop(std::hint::black_box(reserved::<T>(len)?));
    Ok(vec![T::default(); len])
}

/// A copy of a list.
///
/// # Errors
/// As [`reserved`].
pub(crate) fn copied<T: Clone>(values: &[T]) -> Result<Vec<T>> {
    let mut copy = reserved(values.len())?;
    copy.extend_from_slice(values);
    Ok(copy)
}

/// The elements of an iterator that knows their number.
///
/// # Errors
/// As [`reserved`].
pub(crate) fn collected<T>(values: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>> {
    listed(values.len(), values)
}

/// The `len` elements of an iterator.
///
/// # Errors
/// As [`reserved`].
pub(crate) fn listed<T>(len: usize, values: impl Iterator<Item = T>) -> Result<Vec<T>> {
    let mut list = reserved(len)?;
    list.extend(values);
    Ok(list)
}
