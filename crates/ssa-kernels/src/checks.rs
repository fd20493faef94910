//! Argument checks shared by the ops.

use crate::{DType, KernelError, Result, Tensor};

/// The tensor has exactly this shape.
pub(crate) fn check_shape(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    expected: &[usize],
) -> Result<()> {
    if tensor.shape() == expected {
        Ok(())
    } else {
        Err(KernelError::shape(op, argument, format!("{expected:?}"), tensor.shape()))
    }
}

/// The tensors lie where `first` does.
pub(crate) fn same_device(
    op: &'static str,
    first: &Tensor,
    others: &[(&'static str, &Tensor)],
) -> Result<()> {
    let device = first.device();
    match others.iter().find(|(_, tensor)| tensor.device() != device) {
        None => Ok(()),
        Some((argument, tensor)) => {
            let (expected, actual) = (device.to_string(), tensor.device().to_string());
            Err(KernelError::Device { op, argument, expected, actual })
        }
    }
}

/// The tensors have these types: kernels read memory as what they are compiled for.
pub(crate) fn dtypes(op: &'static str, tensors: &[(&'static str, &Tensor, DType)]) -> Result<()> {
    match tensors.iter().find(|(_, tensor, dtype)| tensor.dtype() != *dtype) {
        None => Ok(()),
        Some((argument, tensor, dtype)) => {
            Err(KernelError::value(op, argument, format!("{dtype} elements"), tensor.dtype()))
        }
    }
}

/// The last axis has this size.
pub(crate) fn check_last(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    last: usize,
) -> Result<()> {
    if tensor.last_dim() == last {
        Ok(())
    } else {
        Err(KernelError::shape(op, argument, format!("[.., {last}]"), tensor.shape()))
    }
}

/// The tensor has `rows` rows (all axes but the last) of `last` elements.
pub(crate) fn check_rows(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    rows: usize,
    last: usize,
) -> Result<()> {
    if tensor.rows() == rows && tensor.last_dim() == last {
        Ok(())
    } else {
        Err(KernelError::shape(op, argument, format!("{rows} rows of {last}"), tensor.shape()))
    }
}

/// The tensor has exactly `R` axes; returns their sizes.
pub(crate) fn axes<const R: usize>(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    expected: &str,
) -> Result<[usize; R]> {
    tensor
        .shape()
        .try_into()
        .map_err(|_| KernelError::shape(op, argument, expected, tensor.shape()))
}

/// The number is at least 1.
pub(crate) fn check_positive(op: &'static str, argument: &'static str, value: usize) -> Result<()> {
    if value > 0 { Ok(()) } else { Err(KernelError::value(op, argument, "at least 1", value)) }
}
