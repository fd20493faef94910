//! A dense, row-major `f32` tensor.

use crate::{Device, KernelError, Result};

/// A dense, contiguous, row-major tensor of `f32` with one owner.
///
/// There are no views and no broadcasting: an op that needs a part of a tensor says so in its signature. This
/// keeps "what does this buffer hold" answerable from the shape alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Tensor {
    /// A tensor of zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let data = vec![0.0; shape.iter().product()];
        Self { shape, data }
    }

    /// A tensor of zeros with the shape of `other`.
    pub fn zeros_like(other: &Self) -> Self {
        Self::zeros(other.shape.clone())
    }

    /// An output buffer of which every element will be written.
    ///
    /// Builds with debug assertions, and this crate's own tests, fill it with NaN so that an element an op
    /// forgets to write cannot pass for a result.
    pub(crate) fn for_output(shape: impl Into<Vec<usize>>) -> Self {
        let mut tensor = Self::zeros(shape);
        if cfg!(any(test, debug_assertions)) {
            tensor.data.fill(f32::NAN);
        }
        tensor
    }

    /// Takes ownership of `data` as a tensor of the given shape.
    ///
    /// # Errors
    /// The number of elements is not the product of the shape.
    pub fn from_vec(data: Vec<f32>, shape: impl Into<Vec<usize>>) -> Result<Self> {
        let shape = shape.into();
        if shape.iter().product::<usize>() != data.len() {
            return Err(KernelError::shape(
                "Tensor::from_vec",
                "data",
                format!("{} elements", data.len()),
                &shape,
            ));
        }
        Ok(Self { shape, data })
    }

    /// The sizes of all axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The size of the last axis (1 for a scalar).
    pub fn last_dim(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The number of rows when all axes but the last are folded into one.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// Where the tensor lives.
    pub fn device(&self) -> Device {
        Device::Cpu
    }

    /// The elements in row-major order.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// The elements in row-major order, writable.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The elements in row-major order.
    pub fn into_vec(self) -> Vec<f32> {
        self.data
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// The number of elements differs.
    pub fn reshape(mut self, shape: impl Into<Vec<usize>>) -> Result<Self> {
        let shape = shape.into();
        if shape.iter().product::<usize>() != self.data.len() {
            return Err(KernelError::shape("Tensor::reshape", "self", format!("{shape:?}"), &self.shape));
        }
        self.shape = shape;
        Ok(self)
    }

    /// Sets every element to `value`.
    pub fn fill(&mut self, value: f32) {
        self.data.fill(value);
    }

    /// Adds `other` element by element: residual connections and gradient sums.
    ///
    /// # Errors
    /// The shapes differ.
    pub fn add_assign(&mut self, other: &Self) -> Result<()> {
        self.check_shape("Tensor::add_assign", "other", other)?;
        crate::cpu::elementwise::add_assign(&mut self.data, &other.data);
        Ok(())
    }

    fn check_shape(&self, op: &'static str, argument: &'static str, other: &Self) -> Result<()> {
        if self.shape == other.shape {
            Ok(())
        } else {
            Err(KernelError::shape(op, argument, format!("{:?}", self.shape), &other.shape))
        }
    }
}
