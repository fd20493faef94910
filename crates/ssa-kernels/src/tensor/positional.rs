//! Addresses for launches whose arguments are still positional.

use super::Tensor;
use crate::Result;

impl Tensor {
    /// Where the elements can be read.
    pub(crate) fn device_input(&self) -> Result<u64> {
        Ok(self.cuda_storage()?.input()?.address())
    }

    /// Where every element will be written.
    pub(crate) fn device_output(&mut self) -> Result<u64> {
        Ok(self.cuda_storage_mut()?.output()?.address())
    }

    /// Where the elements can be changed.
    pub(crate) fn device_in_place(&mut self) -> Result<u64> {
        Ok(self.cuda_storage_mut()?.in_place()?.address())
    }

    /// Where a gradient is to be added, and whether there is something to add to.
    pub(crate) fn device_accumulate(&mut self) -> Result<(u64, bool)> {
        let (memory, add) = self.cuda_storage_mut()?.accumulate()?;
        Ok((memory.address(), add))
    }
}
