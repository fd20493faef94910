//! The error type shared by all ops.

/// What was wrong with the arguments of an op. Ops check all arguments before they touch any output.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// A tensor does not have the shape the op needs.
    #[error("{op}: `{argument}` has shape {actual:?}, expected {expected}")]
    Shape {
        /// Name of the op.
        op: &'static str,
        /// Name of the argument as in the op's signature.
        argument: &'static str,
        /// The shape needed, as text with axis letters or sizes.
        expected: String,
        /// The shape given.
        actual: Vec<usize>,
    },
    /// A number is outside the range the op is defined on.
    #[error("{op}: `{argument}` is {actual}, expected {expected}")]
    Value {
        /// Name of the op.
        op: &'static str,
        /// Name of the argument as in the op's signature.
        argument: &'static str,
        /// The range allowed.
        expected: String,
        /// The value given.
        actual: String,
    },
}

impl KernelError {
    pub(crate) fn shape(
        op: &'static str,
        argument: &'static str,
        expected: impl Into<String>,
        actual: &[usize],
    ) -> Self {
        Self::Shape { op, argument, expected: expected.into(), actual: actual.to_vec() }
    }

    pub(crate) fn value(
        op: &'static str,
        argument: &'static str,
        expected: impl Into<String>,
        actual: impl ToString,
    ) -> Self {
        Self::Value { op, argument, expected: expected.into(), actual: actual.to_string() }
    }
}
