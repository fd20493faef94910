//! Page-locked host memory, which the device copies to and from while the host continues.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, result};

use crate::{KernelError, Result};

/// Sizes are rounded up to powers of two of at least this many bytes, so that blocks are reused.
const SMALLEST: usize = 4096;

/// The page-locked blocks of a GPU that are free. Locking pages takes longer than most copies.
#[derive(Clone, Default)]
pub(super) struct PageLockedPool(Arc<Mutex<Vec<Block>>>);

/// Page-locked memory, returned to its pool when dropped.
pub(super) struct PageLocked {
    pool: PageLockedPool,
    block: Option<Block>,
}

struct Block {
    context: Arc<CudaContext>,
    address: *mut c_void,
    bytes: usize,
}

// SAFETY: the block owns its memory, which the driver allows every thread to use and to free.
unsafe impl Send for Block {}

impl PageLockedPool {
    /// A block of at least this many bytes, of arbitrary content.
    pub(super) fn take(&self, context: &Arc<CudaContext>, bytes: usize) -> Result<PageLocked> {
        let bytes = bytes.max(SMALLEST).next_power_of_two();
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reused = free.iter().position(|block| block.bytes == bytes);
        let block = match reused {
            Some(index) => free.swap_remove(index),
            None => Block::new(context, bytes)?,
        };
        drop(free);
        Ok(PageLocked { pool: self.clone(), block: Some(block) })
    }
}

impl PageLocked {
    /// The first `bytes` bytes, at most the size that was asked for.
    pub(super) fn bytes_mut(&mut self, bytes: usize) -> &mut [u8] {
        let Some(block) = &mut self.block else { return &mut [] };
        // SAFETY: the block has at least `bytes` bytes, which are initialized and borrowed with it.
        unsafe { std::slice::from_raw_parts_mut(block.address.cast(), bytes.min(block.bytes)) }
    }
}

impl Drop for PageLocked {
    fn drop(&mut self) {
        let mut free = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.extend(self.block.take());
    }
}

impl Block {
    fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self> {
        let failed = |error| KernelError::cuda("cuMemHostAlloc", error);
        context.bind_to_thread().map_err(failed)?;
        // SAFETY: the size is not 0, and the context is current.
        let address = unsafe { result::malloc_host(bytes, 0) }.map_err(failed)?;
        // SAFETY: the driver allocated this many bytes.
        unsafe { address.cast::<u8>().write_bytes(0, bytes) };
        Ok(Self { context: context.clone(), address, bytes })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the address came from `cuMemHostAlloc` and is freed once. A failure means
            // that the device is lost.
            let _ = unsafe { result::free_host(self.address) };
        }
    }
}
