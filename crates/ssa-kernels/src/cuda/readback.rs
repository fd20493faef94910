//! Reading device memory while work that is queued afterwards runs.

use cudarc::driver::{result, sys};

use super::page_locked::PageLocked;
use super::{Buffer, Gpu};
use crate::{KernelError, Result};

/// A copy that is on its way from the device to the host.
pub(crate) struct Readback {
    gpu: Gpu,
    /// Recorded after the copy.
    copied: sys::CUevent,
    host: PageLocked,
    bytes: usize,
}

// SAFETY: an event handle may be used from any thread that has bound the context, which every call
// does.
unsafe impl Send for Readback {}

impl Readback {
    /// Queues a copy of the first `bytes` bytes of a buffer.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub(crate) fn start(buffer: &Buffer, bytes: usize) -> Result<Self> {
        assert!(bytes <= buffer.bytes(), "a buffer holds the bytes that are read");
        let gpu = buffer.gpu().clone();
        let (stream, host) = (gpu.stream()?, gpu.page_locked(bytes)?);
        let copied = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
            .map_err(|error| KernelError::cuda("cuEventCreate", error))?;
        let mut readback = Self { gpu, copied, host, bytes };
        // SAFETY: source and destination have this many bytes. The destination is not used before
        // the event has passed: `wait` and `drop` wait for it.
        unsafe {
            result::memcpy_dtoh_async(readback.host.bytes_mut(bytes), buffer.address(), stream)
        }
        .map_err(|error| KernelError::cuda("cuMemcpyDtoHAsync", error))?;
        // SAFETY: event and stream belong to the same context and are open.
        unsafe { result::event::record(copied, stream) }
            .map_err(|error| KernelError::cuda("cuEventRecord", error))?;
        Ok(readback)
    }

    /// Waits for the copy, not for work queued after it, and returns its bytes.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if work queued before the copy failed.
    pub(crate) fn wait(&mut self) -> Result<&[u8]> {
        self.gpu.bind()?;
        self.gpu.count_host_wait();
        // SAFETY: the event is open; one that was never recorded counts as passed.
        unsafe { result::event::synchronize(self.copied) }
            .map_err(|error| KernelError::cuda("running kernels", error))?;
        Ok(self.host.bytes_mut(self.bytes))
    }
}

impl Drop for Readback {
    fn drop(&mut self) {
        if self.gpu.bind().is_err() {
            return;
        }
        // The copy must not run into memory that has another user by then. A failure means that the
        // device is lost.
        // SAFETY: the event is open; one that was never recorded counts as passed.
        let _ = unsafe { result::event::synchronize(self.copied) };
        // SAFETY: the event is open and not used after this.
        let _ = unsafe { result::event::destroy(self.copied) };
    }
}

impl std::fmt::Debug for Readback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Readback({} bytes from {})", self.bytes, self.gpu)
    }
}
