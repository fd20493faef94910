//! How a template fails: by an invalid operation, or by more output than its fuel pays for.

use minijinja::{Error, ErrorKind, State};

/// An operation that the values do not support.
pub(super) fn invalid(cause: impl ToString) -> Error {
    Error::new(ErrorKind::InvalidOperation, cause.to_string())
}

/// Charges for bytes before they are made.
pub(super) fn charge(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / 64) as u64)
}
