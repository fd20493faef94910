//! The error type of all ops.

use crate::DType;

/// Why an op did not compute its result.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// An argument breaks the contract of the op. Ops check all arguments before they write to any
    /// of them.
    #[error("{op}: `{argument}` {refusal}")]
    Argument {
        /// Name of the op.
        op: &'static str,
        /// Name of the argument as in the documentation of the op.
        argument: &'static str,
        /// What is wrong with it.
        refusal: Refusal,
    },
    /// An op has no kernel for this device.
    #[error("{op}: {what} is not available on {device}\nhint: {remedy}")]
    Unsupported {
        /// Name of the op.
        op: &'static str,
        /// What the caller asked for.
        what: String,
        /// The device.
        device: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The program cannot use a library that the GPU needs.
    #[error("{name} cannot be used: {cause}\nhint: {remedy}")]
    Library {
        /// Its name.
        name: &'static str,
        /// What was tried, and what the system says.
        cause: String,
        /// What to install.
        remedy: &'static str,
    },
    /// The system does not have the memory of a tensor or a cache on the CPU.
    #[error(
        "cpu: {bytes} bytes ({:.2} MiB) cannot be allocated\nhint: use a smaller model, a smaller \
         batch or shorter rows, or more memory (or raise its limit: ulimit -v, control groups)",
        *bytes as f64 / (1_u64 << 20) as f64
    )]
    HostMemory {
        /// Bytes requested.
        bytes: usize,
    },
    /// The memory of a GPU is full.
    #[error(
        "{device} is out of memory: {} more needed, {} of {} free\nhint: use a smaller \
         micro-batch or shorter rows, recompute activations, or stop other programs on this GPU",
        gib(*bytes), gib(*free), gib(*total)
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// Bytes requested.
        bytes: usize,
        /// Bytes free.
        free: usize,
        /// Bytes of the device.
        total: usize,
    },
    /// A cache of keys and values has no room for more tokens.
    #[error(
        "the KV cache is full: {needed} more tokens needed (in whole pages), {free} of {capacity} \
         free\nhint: make the cache larger, shorten the text, or remove a sequence"
    )]
    CacheFull {
        /// Tokens of the pages needed.
        needed: usize,
        /// Tokens of the free pages.
        free: usize,
        /// Tokens of all pages.
        capacity: usize,
    },
    /// A kernel does not compile: a bug of this program or of the compiler.
    #[error(
        "kernels `{module}` do not compile for {arch}:\n{log}\nhint: report this together with \
         the output of `ssa doctor`"
    )]
    Compile {
        /// Name of the source.
        module: &'static str,
        /// The architecture.
        arch: String,
        /// The messages of the compiler.
        log: String,
    },
    /// A call of the driver or of a library failed, or a kernel queued before it.
    #[error("{call} failed: {message}")]
    Cuda {
        /// The call.
        call: &'static str,
        /// What the library says.
        message: String,
    },
}

/// What is wrong with an argument.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The axes do not have the sizes that the other arguments ask for.
    #[error("has shape {actual:?}, expected {expected}")]
    Shape {
        /// The shape needed, as text with axis letters and sizes.
        expected: String,
        /// The shape given.
        actual: Vec<usize>,
    },
    /// The elements have another type than the op reads.
    #[error("holds {actual} elements, expected {expected}")]
    DType {
        /// The type needed.
        expected: String,
        /// The type given.
        actual: DType,
    },
    /// The argument is on another device than the rest of the call.
    #[error("is on {actual}, expected {expected}")]
    Device {
        /// The device of the call.
        expected: String,
        /// The device of the argument.
        actual: String,
    },
    /// A number is outside the range on which the op is defined.
    #[error("is {actual}, expected {expected}")]
    Value {
        /// The range allowed.
        expected: String,
        /// The value given.
        actual: String,
    },
}

impl KernelError {
    /// The name of the argument that an op refused; `None` for other errors.
    pub fn argument(&self) -> Option<&'static str> {
        match self {
            Self::Argument { argument, .. } => Some(argument),
            _ => None,
        }
    }

    pub(crate) fn shape(
        op: &'static str,
        argument: &'static str,
        expected: impl Into<String>,
        actual: &[usize],
    ) -> Self {
        let refusal = Refusal::Shape { expected: expected.into(), actual: actual.to_vec() };
        Self::Argument { op, argument, refusal }
    }

    pub(crate) fn dtype(
        op: &'static str,
        argument: &'static str,
        expected: impl ToString,
        actual: DType,
    ) -> Self {
        let refusal = Refusal::DType { expected: expected.to_string(), actual };
        Self::Argument { op, argument, refusal }
    }

    pub(crate) fn device(
        op: &'static str,
        argument: &'static str,
        expected: impl ToString,
        actual: impl ToString,
    ) -> Self {
        let (expected, actual) = (expected.to_string(), actual.to_string());
        Self::Argument { op, argument, refusal: Refusal::Device { expected, actual } }
    }

    pub(crate) fn value(
        op: &'static str,
        argument: &'static str,
        expected: impl Into<String>,
        actual: impl ToString,
    ) -> Self {
        let refusal = Refusal::Value { expected: expected.into(), actual: actual.to_string() };
        Self::Argument { op, argument, refusal }
    }
}

fn gib(bytes: usize) -> String {
    format!("{:.2} GiB", bytes as f64 / (1_u64 << 30) as f64)
}
