//! Reading device memory while work that is queued afterwards runs.

use cudarc::driver::result;

use super::page_locked::PageLocked;
use super::{Buffer, Element, Gpu};
use crate::{KernelError, Result};

/// A copy from the device to the host that may still run.
pub(crate) struct Readback {
    gpu: Gpu,
    /// Present until the readback is dropped.
    host: Option<PageLocked>,
    bytes: usize,
}

impl Readback {
    /// Queues a copy of the first `len` elements of a buffer, or of all if it has fewer.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub(crate) fn start<T: Element>(buffer: &Buffer<T>, len: usize) -> Result<Self> {
        let bytes = len.min(buffer.len()) * size_of::<T>();
        let gpu = buffer.gpu().clone();
        let (stream, source) = (gpu.stream()?, buffer.memory().address());
        let mut host = gpu.page_locked().take(gpu.context(), bytes)?;
        // SAFETY: source and destination have this many bytes. The destination is not used before
        // the event recorded next.
        unsafe { result::memcpy_dtoh_async(host.bytes_mut(bytes)?, source, stream) }
            .map_err(|error| KernelError::cuda("cuMemcpyDtoHAsync", error))?;
        host.record(gpu.cuda_stream())?;
        Ok(Self { gpu, host: Some(host), bytes })
    }

    /// Waits for the copy, not for work queued after it, and returns its bytes.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if work queued before the copy failed.
    pub(crate) fn wait(&mut self) -> Result<&[u8]> {
        let Some(host) = &mut self.host else { return Ok(&[]) };
        self.gpu.count_host_wait();
        host.wait()?;
        Ok(host.bytes_mut(self.bytes)?)
    }
}

impl Drop for Readback {
    fn drop(&mut self) {
        if let Some(host) = self.host.take() {
            self.gpu.page_locked().put(host);
        }
    }
}

impl std::fmt::Debug for Readback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Readback({} bytes from {})", self.bytes, self.gpu)
    }
}
