//! Errors of a template: an invalid operation, or too much output for its fuel.

use minijinja::{Error, ErrorKind, State};

/// An operation that the values do not support.
pub(super) fn invalid(cause: impl ToString) -> Error {
    Error::new(ErrorKind::InvalidOperation, cause.to_string())
}

/// Charges fuel for bytes before they are allocated.
pub(super) fn charge(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / 64) as u64)
}
