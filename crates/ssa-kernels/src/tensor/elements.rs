//! Parts of tensors: elements in row-major order, without regard to axes.

use std::ops::Range;

use super::Tensor;
use super::storage::Storage;
use crate::{Device, KernelError, Result};

impl Tensor {
    /// `self += other[start..]`, elements in row-major order, as many as this tensor has.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if there are not so many, `start` is no multiple of 8, or type or
    /// device differ.
    pub fn add_elements(&mut self, other: &Self, start: usize) -> Result<()> {
        const OP: &str = "Tensor::add_elements";
        let range = start..start.saturating_add(self.len());
        other.check_range(OP, &range)?;
        if !start.is_multiple_of(8) {
            return Err(KernelError::value(OP, "start", "a multiple of 8", start));
        }
        if other.dtype() != self.dtype() {
            return Err(KernelError::dtype(OP, "other", self.dtype(), other.dtype()));
        }
        if other.location() != self.location() {
            return Err(KernelError::device(OP, "other", self.location(), other.location()));
        }
        match self.device() {
            Device::Cuda(gpu) => self.add_elements_on_gpu(&gpu, other, start),
            Device::Cpu => {
                let addends = &other.as_slice()?[range];
                let sums = self.as_mut_slice()?.iter_mut().zip(addends);
                sums.for_each(|(sum, addend)| *sum += addend);
                Ok(())
            }
        }
    }

    /// A copy of some elements in row-major order, with one axis.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if there are no such elements.
    pub fn elements(&self, range: Range<usize>) -> Result<Self> {
        self.check_range("Tensor::elements", &range)?;
        match &self.storage {
            Storage::Cuda(storage) => {
                let element = self.dtype().size();
                let mut out = Self::for_output_like(self, [range.len()])?;
                let (source, from) = (storage.input()?, range.start * element);
                let target = out.device_memory_mut()?;
                target.copy_from(0, (source, from), range.len() * element)?;
                Ok(out)
            }
            _ => {
                let length = range.len();
                Self::from_vec(self.as_slice()?[range].to_vec(), [length])
            }
        }
    }

    /// Overwrites the elements from `start` on with those of another tensor of this type and
    /// device.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if there are not so many, or type or device differ.
    pub fn set_elements(&mut self, start: usize, values: &Self) -> Result<()> {
        const OP: &str = "Tensor::set_elements";
        let range = start..start.saturating_add(values.len());
        self.check_range(OP, &range)?;
        if values.dtype() != self.dtype() {
            return Err(KernelError::dtype(OP, "values", self.dtype(), values.dtype()));
        }
        if values.location() != self.location() {
            return Err(KernelError::device(OP, "values", self.location(), values.location()));
        }
        if let Storage::Cuda(storage) = &values.storage {
            let (element, source) = (self.dtype().size(), storage.input()?);
            let target = self.device_memory_in_place()?;
            return target.copy_from(start * element, (source, 0), range.len() * element);
        }
        self.as_mut_slice()?[range].copy_from_slice(values.as_slice()?);
        Ok(())
    }

    fn check_range(&self, op: &'static str, range: &Range<usize>) -> Result<()> {
        if range.start <= range.end && range.end <= self.len() {
            return Ok(());
        }
        let expected = format!("elements of 0..{}", self.len());
        Err(KernelError::value(op, "range", expected, format!("{range:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_vec(values.to_vec(), [values.len()]).unwrap()
    }

    fn numbered(len: usize) -> Tensor {
        tensor(&(0..len).map(|index| index as f32).collect::<Vec<_>>())
    }

    #[test]
    fn parts_are_copied_changed_and_added() {
        let mut x = numbered(24).reshape([3, 8]).unwrap();
        let part = x.elements(9..12).unwrap();
        assert_eq!((part.shape(), part.as_slice().unwrap()), (&[3][..], &[9.0, 10.0, 11.0][..]));
        x.set_elements(1, &tensor(&[-1.0, -2.0])).unwrap();
        assert_eq!(x.as_slice().unwrap()[..4], [0.0, -1.0, -2.0, 3.0]);
        let mut sum = tensor(&[100.0, 200.0]);
        sum.add_elements(&x, 16).unwrap();
        assert_eq!(sum.as_slice().unwrap(), [116.0, 217.0]);
        assert!(x.elements(24..24).unwrap().is_empty());
    }

    #[test]
    fn parts_that_do_not_exist_are_refused() {
        let (mut x, mut sum) = (numbered(24), numbered(2));
        for (result, range) in [
            (x.elements(20..25).map(drop), "20..25"),
            (x.set_elements(23, &numbered(2)), "23..25"),
            (x.set_elements(usize::MAX, &numbered(2)), &format!("{0}..{0}", usize::MAX)),
            (sum.add_elements(&x, 23), "23..25"),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("`range`") && error.contains(range), "{error}");
        }
        let error = sum.add_elements(&x, 4).unwrap_err().to_string();
        assert!(error.contains("a multiple of 8"), "{error}");
    }
}
