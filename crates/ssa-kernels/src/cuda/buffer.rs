//! Device memory.

use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::parameters::{Element, Input, Output};
use super::{Event, Gpu};
use crate::{KernelError, Result};

/// Device memory with one owner, from the driver's pool, which frees it in the order of its stream:
/// kernels that were queued before may still use it.
pub(crate) struct Memory {
    gpu: Gpu,
    address: NonZeroU64,
    bytes: usize,
    /// The owner of the memory, if this only reads it from another stream.
    source: Option<Arc<Memory>>,
}

impl Memory {
    /// Memory that holds anything (NaN where the GPU poisons outputs).
    pub(crate) fn uninitialized(gpu: &Gpu, bytes: usize) -> Result<Self> {
        gpu.check_not_recording("cuMemAllocAsync")?;
        let stream = gpu.stream()?;
        // The pool refuses zero bytes.
        let allocated = bytes.max(1);
        // SAFETY: the stream belongs to the GPU and is open as long as `gpu` is.
        let address = match unsafe { result::malloc_async(stream, allocated) } {
            Ok(address) => address,
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                return Err(gpu.out_of_memory(bytes));
            }
            Err(error) => return Err(KernelError::cuda("cuMemAllocAsync", error)),
        };
        let address = NonZeroU64::new(address).ok_or_else(|| gpu.out_of_memory(bytes))?;
        let mut memory = Self { gpu: gpu.clone(), address, bytes, source: None };
        if gpu.poisons_outputs() {
            memory.fill_bytes(0xff)?;
        }
        Ok(memory)
    }

    /// A copy in separate memory.
    pub(crate) fn duplicate(&self) -> Result<Self> {
        let copy = Self::uninitialized(&self.gpu, self.bytes)?;
        let stream = self.gpu.stream()?;
        let (to, from) = (copy.address.get(), self.address.get());
        // SAFETY: both have this many bytes, and the copy is in stream order before either is
        // freed.
        unsafe { result::memcpy_dtod_async(to, from, self.bytes, stream) }
            .map_err(|error| KernelError::cuda("cuMemcpyDtoDAsync", error))?;
        Ok(copy)
    }

    /// The same memory for reading on another stream of the device. That stream waits for what is
    /// queued here; when the result is dropped, this stream waits for what was queued there. So the
    /// owner may overwrite or free the memory afterwards.
    pub(crate) fn shared_with(self: &Arc<Self>, gpu: &Gpu) -> Result<Self> {
        Event::record(&self.gpu)?.wait(gpu)?;
        let Self { address, bytes, .. } = **self;
        Ok(Self { gpu: gpu.clone(), address, bytes, source: Some(self.clone()) })
    }

    /// Whether another stream owns the memory.
    pub(crate) fn is_shared(&self) -> bool {
        self.source.is_some()
    }

    /// The stream that uses it.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The elements, for a kernel that reads them.
    pub(crate) fn input<T: Element>(&self) -> Input<'_, T> {
        Input::at(self.address)
    }

    /// The elements from one on that exists.
    pub(crate) fn input_from<T: Element>(&self, first: usize) -> Input<'_, T> {
        Input::at(self.address.saturating_add((first * size_of::<T>()) as u64))
    }

    /// The elements, for a kernel that writes them; the caller owns the memory.
    pub(crate) fn output<T: Element>(&self) -> Output<'_, T> {
        Output::at(self.address)
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The beginning of the memory.
    pub(crate) fn address(&self) -> sys::CUdeviceptr {
        self.address.get()
    }

    /// Sets every byte.
    pub(crate) fn fill_bytes(&mut self, byte: u8) -> Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        let stream = self.gpu.stream()?;
        // SAFETY: the memory has this many bytes and is borrowed mutably.
        unsafe { result::memset_d8_async(self.address(), byte, self.bytes, stream) }
            .map_err(|error| KernelError::cuda("cuMemsetD8Async", error))
    }

    /// Copies host values into the beginning.
    pub(crate) fn write<T: Element>(&self, values: &[T]) -> Result<()> {
        self.check_fits(values)?;
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: an element is plain data, so its bytes can be read as such.
        let bytes = unsafe {
            std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values))
        };
        // SAFETY: the memory has room for the values (checked above) and is freed in stream order.
        unsafe { self.gpu.copy_to_device(self.address(), bytes) }
    }

    /// Copies the beginning into host values; waits for all work before.
    pub(crate) fn read<T: Element>(&self, values: &mut [T]) -> Result<()> {
        self.check_fits(values)?;
        if !values.is_empty() {
            let stream = self.gpu.stream()?;
            // SAFETY: the memory holds this many bytes (checked above), and all bit patterns are
            // values of `T`.
            unsafe { result::memcpy_dtoh_async(values, self.address(), stream) }
                .map_err(|error| KernelError::cuda("cuMemcpyDtoHAsync", error))?;
        }
        self.gpu.synchronize()
    }

    /// Copies `bytes` bytes from byte `from` of other memory of the same stream to byte `offset`.
    pub(crate) fn copy_from(
        &self,
        offset: usize,
        (source, from): (&Self, usize),
        bytes: usize,
    ) -> Result<()> {
        let fits = |memory: &Self, offset: usize| {
            offset.checked_add(bytes).is_some_and(|end| end <= memory.bytes)
        };
        if !fits(self, offset) || !fits(source, from) {
            let expected = format!("at most {} bytes", self.bytes.min(source.bytes));
            return Err(KernelError::value("a copy", "bytes", expected, bytes));
        }
        if bytes == 0 {
            return Ok(());
        }
        let stream = self.gpu.stream()?;
        let [target, source] = [self.address() + offset as u64, source.address() + from as u64];
        // SAFETY: both have this many bytes there, and the copy is in stream order before either is
        // freed.
        unsafe { result::memcpy_dtod_async(target, source, bytes, stream) }
            .map_err(|error| KernelError::cuda("cuMemcpyDtoDAsync", error))
    }

    fn check_fits<T>(&self, values: &[T]) -> Result<()> {
        if size_of_val(values) <= self.bytes {
            return Ok(());
        }
        let expected = format!("at most {} bytes", self.bytes);
        Err(KernelError::value("a copy", "values", expected, size_of_val(values)))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A failure means that the device is lost, which the next call reports.
        if let Some(owner) = &self.source {
            let _ = Event::record(&self.gpu).and_then(|event| event.wait(&owner.gpu));
        } else if let Ok(stream) = self.gpu.stream() {
            // SAFETY: the address came from this pool and is freed once.
            let _ = unsafe { result::free_async(self.address(), stream) };
        }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes on {}", self.bytes, self.gpu)
    }
}

/// Device memory that holds elements of one type.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    memory: Memory,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    /// Memory that holds anything.
    pub(super) fn uninitialized(gpu: &Gpu, len: usize) -> Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| gpu.out_of_memory(usize::MAX))?;
        Ok(Self { memory: Memory::uninitialized(gpu, bytes)?, len, elements: PhantomData })
    }

    /// The stream it belongs to.
    pub(crate) fn gpu(&self) -> &Gpu {
        self.memory.gpu()
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The elements, for a kernel that reads them.
    pub(crate) fn input(&self) -> Input<'_, T> {
        self.memory.input()
    }

    /// The elements, for a kernel that writes them.
    pub(crate) fn output(&mut self) -> Output<'_, T> {
        self.memory.output()
    }

    /// As [`Buffer::output`], for memory that has several owners: kernels of one stream run one
    /// after the other.
    pub(crate) fn shared_output(&self) -> Output<'_, T> {
        self.memory.output()
    }

    /// As [`Buffer::write`], for memory that has several owners.
    pub(crate) fn shared_write(&self, values: &[T]) -> Result<()> {
        self.memory.write(values)
    }

    /// The elements in groups of N, such as the `int4` entries of a table of `int`.
    pub(crate) fn groups<const N: usize>(&self) -> Input<'_, [T; N]>
    where
        [T; N]: Element,
    {
        self.memory.input()
    }

    /// Sets every byte to zero.
    pub(crate) fn fill_zero(&mut self) -> Result<()> {
        self.memory.fill_bytes(0)
    }

    /// Copies host values into the beginning.
    pub(crate) fn write(&mut self, values: &[T]) -> Result<()> {
        self.memory.write(values)
    }

    /// Copies the first `len` elements of another buffer of the same stream to element `offset`.
    pub(crate) fn copy_from(&mut self, offset: usize, source: &Self, len: usize) -> Result<()> {
        let element = size_of::<T>();
        self.memory.copy_from(offset * element, (&source.memory, 0), len * element)
    }

    /// The memory of the elements.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Copies the beginning into host values; waits for all work before.
    pub(crate) fn read(&self, values: &mut [T]) -> Result<()> {
        self.memory.read(values)
    }
}

impl Gpu {
    /// Uninitialized memory for `len` elements.
    pub(crate) fn alloc<T: Element>(&self, len: usize) -> Result<Buffer<T>> {
        Buffer::uninitialized(self, len)
    }

    /// A copy of host values on the device.
    pub(crate) fn upload<T: Element>(&self, values: &[T]) -> Result<Buffer<T>> {
        let mut buffer = self.alloc(values.len())?;
        buffer.write(values)?;
        Ok(buffer)
    }

    /// Reserves memory for buffers that are still to come, so that none of them has to ask the
    /// device, which other programs use as well.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`] if the device does not have so much.
    pub fn reserve(&self, bytes: usize) -> Result<()> {
        // What is freed stays in the pool.
        drop(Memory::uninitialized(self, bytes)?);
        let (mut peak, pool) = (0_u64, self.pool()?);
        let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        // SAFETY: the attribute is a 64-bit number, which 0 resets to what is in use now.
        unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut peak).cast()) }
            .map_err(|error| KernelError::cuda("cuMemPoolSetAttribute", error))
    }
}
