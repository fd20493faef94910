//! Page-locked host memory, which the device copies to and from while the host continues.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, PinnedHostSlice};

use crate::{KernelError, Result};

/// Bytes of the smallest block. Sizes are powers of two, so that blocks are reused.
const SMALLEST: usize = 4096;

/// The page-locked blocks of a GPU. Locking pages takes longer than most copies, so blocks are
/// kept: as many as were ever used together.
#[derive(Default)]
pub(super) struct PageLockedPool(Mutex<Vec<PageLocked>>);

/// A block of page-locked memory, and the end of the last copy to or from it.
pub(super) struct PageLocked {
    memory: PinnedHostSlice<u8>,
    copied: CudaEvent,
}

impl PageLockedPool {
    /// The smallest block of at least `bytes` bytes that no copy uses; its content is arbitrary.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub(super) fn take(&self, context: &Arc<CudaContext>, bytes: usize) -> Result<PageLocked> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |block: &PageLocked| block.memory.len() >= bytes && block.copied.is_complete();
        let free = blocks.iter().enumerate().filter(|(_, block)| fits(block));
        match free.min_by_key(|(_, block)| block.memory.len()) {
            Some((index, _)) => Ok(blocks.swap_remove(index)),
            None => PageLocked::new(context, bytes),
        }
    }

    /// Returns a block, whose last copy may still run.
    pub(super) fn put(&self, block: PageLocked) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(block);
    }
}

impl PageLocked {
    fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self> {
        let copied =
            context.new_event(None).map_err(|error| KernelError::cuda("cuEventCreate", error))?;
        let len = bytes.next_power_of_two().max(SMALLEST);
        let failed = |error| KernelError::cuda("cuMemHostAlloc", error);
        // SAFETY: the memory is written next, before anything reads it.
        let mut memory = unsafe { context.alloc_pinned_with_flags(len, 0) }.map_err(failed)?;
        memory.as_mut_slice().map_err(failed)?.fill(0);
        Ok(Self { memory, copied })
    }

    /// The first `bytes` bytes, at most the size that was asked for.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub(super) fn bytes_mut(&mut self, bytes: usize) -> Result<&mut [u8]> {
        let memory = self.memory.as_mut_slice();
        let memory = memory.map_err(|error| KernelError::cuda("cuEventSynchronize", error))?;
        let len = memory.len();
        Ok(&mut memory[..bytes.min(len)])
    }

    /// Marks the end of a copy that was queued on a stream.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub(super) fn record(&self, stream: &CudaStream) -> Result<()> {
        self.copied.record(stream).map_err(|error| KernelError::cuda("cuEventRecord", error))
    }

    /// Waits for the end of the last copy.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the copy, or work queued before it, failed.
    pub(super) fn wait(&self) -> Result<()> {
        self.copied.synchronize().map_err(|error| KernelError::cuda("running kernels", error))
    }
}

impl Drop for PageLocked {
    fn drop(&mut self) {
        // The last copy uses the memory that is freed next. A failure means that the device is
        // lost.
        let _ = self.copied.synchronize();
    }
}
