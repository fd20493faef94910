//! The error type shared by all ops.

/// What was wrong with the arguments of an op. Ops check all arguments before they touch any
/// output.
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
    /// A tensor is not where the others of the call are.
    #[error("{op}: `{argument}` is on {actual}, expected {expected}")]
    Device {
        /// Name of the op.
        op: &'static str,
        /// Name of the argument as in the op's signature.
        argument: &'static str,
        /// The device of the others.
        expected: String,
        /// Where it is.
        actual: String,
    },
    /// An op has no kernel for this device.
    #[error("{op}: {what} is not available on {device}; {remedy}")]
    Unsupported {
        /// Name of the op.
        op: &'static str,
        /// What is asked for.
        what: String,
        /// The device.
        device: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A library that the GPU needs cannot be used.
    #[error("{name} cannot be used: {cause}; {remedy}")]
    Library {
        /// Its name.
        name: &'static str,
        /// What was tried, and what the system says.
        cause: String,
        /// What to install.
        remedy: &'static str,
    },
    /// A GPU's memory is full.
    #[error(
        "{device} is out of memory: {} more are needed, {} of {} are free; use a smaller micro-batch or shorter rows, recompute \
         activations, or stop other programs on this GPU",
        gib(*bytes), gib(*free), gib(*total)
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// Bytes that were asked for.
        bytes: usize,
        /// Bytes that are free.
        free: usize,
        /// Bytes of the device.
        total: usize,
    },
    /// A kernel does not compile: a fault of this program or of the compiler found.
    #[error(
        "kernels `{module}` do not compile for {arch}; please report this together with `ssa doctor`:\n{log}"
    )]
    Compile {
        /// Name of the source.
        module: &'static str,
        /// The architecture.
        arch: String,
        /// The compiler's messages.
        log: String,
    },
    /// A call of the driver or of a library failed, or a kernel before it.
    #[error("{call} failed: {message}")]
    Cuda {
        /// The call.
        call: &'static str,
        /// What the library says.
        message: String,
    },
}

fn gib(bytes: usize) -> String {
    format!("{:.2} GiB", bytes as f64 / (1_u64 << 30) as f64)
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
