//! Uploads that the host does not wait for.

use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys::CU_MEMHOSTALLOC_WRITECOMBINED;
use cudarc::driver::{CudaEvent, PinnedHostSlice, result, sys};

use super::Gpu;
use crate::{KernelError, Result};

/// Bytes of the largest upload that goes through staging memory: more than a step uploads. Weights
/// are larger, and waiting for them costs less than locking so many pages.
const LARGEST: usize = 16 << 20;
/// Bytes of the smallest block.
const SMALLEST: usize = 4096;

/// Page-locked host memory from which the device copies on its own time. A block is used again once
/// its copy is done; there are as many as were ever in flight together.
#[derive(Default)]
pub(super) struct Staging(Mutex<Vec<Block>>);

impl Staging {
    /// Queues a copy of `bytes` to an address of the device, and returns before it is done.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub(super) fn copy(&self, gpu: &Gpu, to: sys::CUdeviceptr, bytes: &[u8]) -> Result<()> {
        let failed = |error| KernelError::cuda("cuMemcpyHtoDAsync", error);
        gpu.check_not_recording("cuMemcpyHtoDAsync")?;
        let stream = gpu.stream()?;
        if bytes.len() > LARGEST {
            // The driver stages pageable memory itself, and waits for the stream to do so.
            gpu.count_host_wait();
            // SAFETY: the caller's memory has room for the bytes, and the driver has read pageable
            // ones when it returns.
            return unsafe { result::memcpy_htod_async(to, bytes, stream) }.map_err(failed);
        }
        let mut block = match self.take_free(bytes.len()) {
            Some(block) => block,
            None => Block::new(gpu, bytes.len())?,
        };
        let staged = &mut block.memory.as_mut_slice().map_err(failed)?[..bytes.len()];
        staged.copy_from_slice(bytes);
        // SAFETY: the caller's memory has room for the bytes; the block is neither reused nor freed
        // before the event recorded next.
        unsafe { result::memcpy_htod_async(to, staged, stream) }.map_err(failed)?;
        block.copied.record(gpu.cuda_stream()).map_err(failed)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(block);
        Ok(())
    }

    /// The smallest block that holds `bytes` and whose copy is done.
    fn take_free(&self, bytes: usize) -> Option<Block> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |block: &Block| block.memory.len() >= bytes && block.copied.is_complete();
        let free = blocks.iter().enumerate().filter(|(_, block)| fits(block));
        let index = free.min_by_key(|(_, block)| block.memory.len())?.0;
        Some(blocks.swap_remove(index))
    }
}

/// A piece of page-locked memory and the end of the last copy from it.
struct Block {
    memory: PinnedHostSlice<u8>,
    copied: CudaEvent,
}

impl Block {
    fn new(gpu: &Gpu, bytes: usize) -> Result<Self> {
        let len = bytes.next_power_of_two().max(SMALLEST);
        let copied = gpu
            .context()
            .new_event(None)
            .map_err(|error| KernelError::cuda("cuEventCreate", error))?;
        // SAFETY: the memory is written before it is read.
        let memory =
            unsafe { gpu.context().alloc_pinned_with_flags(len, CU_MEMHOSTALLOC_WRITECOMBINED) }
                .map_err(|error| KernelError::cuda("cuMemHostAlloc", error))?;
        Ok(Self { memory, copied })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // The copy reads the memory that is freed next. A failure means that the device is lost.
        let _ = self.copied.synchronize();
    }
}
