//! Uploads that the host does not wait for.

use cudarc::driver::{result, sys};

use super::Gpu;
use crate::{KernelError, Result};

/// Bytes of the largest upload that goes through page-locked memory: more than a step uploads.
/// Weights are larger, and waiting for them costs less than locking so many pages.
const LARGEST: usize = 16 << 20;

impl Gpu {
    /// Queues a copy of `bytes` to an address of the device, and returns before it is done.
    ///
    /// # Safety
    /// The memory at `to` has room for the bytes and is freed in the order of the stream.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub(super) unsafe fn copy_to_device(&self, to: sys::CUdeviceptr, bytes: &[u8]) -> Result<()> {
        let failed = |error| KernelError::cuda("cuMemcpyHtoDAsync", error);
        self.check_not_recording("cuMemcpyHtoDAsync")?;
        let stream = self.stream()?;
        if bytes.len() > LARGEST {
            // The driver stages pageable memory itself, and waits for the stream to do so.
            self.count_host_wait();
            // SAFETY: the caller's memory has room for the bytes, and the driver has read pageable
            // ones when it returns.
            return unsafe { result::memcpy_htod_async(to, bytes, stream) }.map_err(failed);
        }
        let mut block = self.page_locked().take(self.context(), bytes.len())?;
        let staged = block.bytes_mut(bytes.len())?;
        staged.copy_from_slice(bytes);
        // SAFETY: the caller's memory has room for the bytes; the block is neither reused nor freed
        // before the event recorded next.
        unsafe { result::memcpy_htod_async(to, staged, stream) }.map_err(failed)?;
        block.record(self.cuda_stream())?;
        self.page_locked().put(block);
        Ok(())
    }
}
