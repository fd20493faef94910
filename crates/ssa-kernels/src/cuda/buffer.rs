//! Device memory.

use cudarc::driver::{result, sys};

use super::Gpu;
use crate::{KernelError, Result};

/// Device memory with one owner, from the driver's pool. It is given back in stream order: kernels
/// that were queued before may still use it.
pub(crate) struct Buffer {
    gpu: Gpu,
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl Buffer {
    /// Memory that holds anything (NaN where the GPU poisons outputs).
    pub(super) fn uninitialised(gpu: &Gpu, bytes: usize) -> Result<Self> {
        let stream = gpu.stream()?;
        // The pool refuses zero bytes.
        let allocated = bytes.max(1);
        // SAFETY: the stream is the GPU's own and open as long as `gpu` is.
        let address = match unsafe { result::malloc_async(stream, allocated) } {
            Ok(address) => address,
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                return Err(gpu.out_of_memory(bytes));
            }
            Err(error) => return Err(KernelError::cuda("cuMemAllocAsync", error)),
        };
        let mut buffer = Self { gpu: gpu.clone(), address, bytes };
        if gpu.poisons_outputs() {
            buffer.fill_bytes(0xff)?;
        }
        Ok(buffer)
    }

    /// A copy in memory of its own.
    pub(crate) fn duplicate(&self) -> Result<Self> {
        let mut copy = Self::uninitialised(&self.gpu, self.bytes)?;
        copy.copy_from(0, self, self.bytes)?;
        Ok(copy)
    }

    /// Copies the first `bytes` bytes of another buffer of the same GPU to byte `offset`.
    pub(crate) fn copy_from(&mut self, offset: usize, source: &Self, bytes: usize) -> Result<()> {
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        assert!(fits && bytes <= source.bytes, "both buffers have the bytes that are copied");
        if bytes == 0 {
            return Ok(());
        }
        let (stream, target) = (self.gpu.stream()?, self.address + offset as u64);
        // SAFETY: both buffers have this many bytes there, and the copy is in stream order before
        // either is given back.
        unsafe { result::memcpy_dtod_async(target, source.address, bytes, stream) }
            .map_err(|error| KernelError::cuda("cuMemcpyDtoDAsync", error))
    }

    /// The GPU it lies on.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets every byte.
    pub(crate) fn fill_bytes(&mut self, byte: u8) -> Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        let stream = self.gpu.stream()?;
        // SAFETY: the buffer has this many bytes and is borrowed mutably.
        unsafe { result::memset_d8_async(self.address, byte, self.bytes, stream) }
            .map_err(|error| KernelError::cuda("cuMemsetD8Async", error))
    }

    /// Copies host values into the beginning.
    pub(crate) fn write<T: Copy>(&mut self, values: &[T]) -> Result<()> {
        assert!(size_of_val(values) <= self.bytes, "values fit into their buffer");
        if values.is_empty() {
            return Ok(());
        }
        let stream = self.gpu.stream()?;
        // SAFETY: the values fit (checked above); from pageable memory the driver has taken them
        // when it returns.
        unsafe { result::memcpy_htod_async(self.address, values, stream) }
            .map_err(|error| KernelError::cuda("cuMemcpyHtoDAsync", error))
    }

    /// Copies the beginning into host values; waits for all work before.
    pub(crate) fn read<T: Copy>(&self, values: &mut [T]) -> Result<()> {
        assert!(size_of_val(values) <= self.bytes, "a buffer holds the values that are read");
        if !values.is_empty() {
            let stream = self.gpu.stream()?;
            // SAFETY: the buffer holds this many bytes (checked above), and `T` is plain data that
            // any bytes make.
            unsafe { result::memcpy_dtoh_async(values, self.address, stream) }
                .map_err(|error| KernelError::cuda("cuMemcpyDtoHAsync", error))?;
        }
        self.gpu.synchronize()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A failure means that the device is lost, which the next call reports.
        if let Ok(stream) = self.gpu.stream() {
            // SAFETY: the address came from this pool and is given back once.
            let _ = unsafe { result::free_async(self.address, stream) };
        }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes on {})", self.bytes, self.gpu)
    }
}
