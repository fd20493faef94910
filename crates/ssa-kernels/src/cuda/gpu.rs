//! An opened device.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cudarc::driver::{CudaContext, CudaStream, result, sys};

use super::Module;
use super::buffer::Buffer;
use super::cache::{KernelCache, Origin};
use super::launch::{Kernel, LoadedModule};
use super::library::{Library, driver_message};
use super::matmul::Matmul;
use super::page_locked::{PageLocked, PageLockedPool};
use super::properties::{GpuProperties, properties};
use crate::{KernelError, Result};

/// An opened GPU with one stream. Cloning gives another handle to the same.
///
/// Work is queued and runs in order; only reading results waits for it. So an error inside a kernel
/// shows at the next reading.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    properties: GpuProperties,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    cache: KernelCache,
    modules: Mutex<HashMap<ModuleKey, Arc<LoadedModule>>>,
    matmul: Mutex<Matmul>,
    kernel_times: Mutex<KernelTimes>,
    page_locked: PageLockedPool,
    host_waits: AtomicU64,
    poison: AtomicBool,
}

type ModuleKey = (&'static str, Vec<(&'static str, i64)>);

/// How kernels came to be in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KernelTimes {
    /// Modules that were compiled.
    pub compiled: usize,
    /// What that took.
    pub compile_seconds: f64,
    /// Modules that were read from the cache.
    pub cached: usize,
    /// What that took.
    pub read_seconds: f64,
}

/// Device memory of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes in tensors and scratch now.
    pub used: usize,
    /// The most there ever were.
    pub peak: usize,
    /// The most the pool ever held, with what lies between buffers.
    pub reserved_peak: usize,
}

impl Gpu {
    /// Opens a GPU. Compiled kernels are kept in `cache`.
    ///
    /// # Errors
    /// [`KernelError::Library`] names a library that is missing and what to install;
    /// [`KernelError::Argument`] if there is no such device or it is older than compute capability
    /// 8.0; [`KernelError::Cuda`] if it cannot be opened.
    pub fn open(ordinal: usize, cache: KernelCache) -> Result<Self> {
        let properties = properties(ordinal)?;
        if properties.compute_capability < 80 {
            let actual = format!("{} with {}", properties.name, properties.compute_capability);
            return Err(KernelError::value(
                "Gpu::open",
                "compute capability",
                "80 (Ampere) or newer",
                actual,
            ));
        }
        Library::Nvrtc.load()?;
        Library::CublasLt.load()?;
        let failed = |error| KernelError::cuda("opening the GPU", error);
        let context = CudaContext::new(ordinal).map_err(failed)?;
        let stream = context.new_stream().map_err(failed)?;
        keep_freed_memory(&context)?;
        let matmul = Matmul::new(&properties, &cache)?;
        Ok(Self(Arc::new(Inner {
            properties,
            context,
            stream,
            cache,
            modules: Mutex::default(),
            kernel_times: Mutex::default(),
            matmul: Mutex::new(matmul),
            page_locked: PageLockedPool::default(),
            host_waits: AtomicU64::new(0),
            poison: AtomicBool::new(false),
        })))
    }

    /// What the device is.
    pub fn properties(&self) -> &GpuProperties {
        &self.0.properties
    }

    /// Fills every new output with NaN from now on, so that an element that is never written cannot
    /// pass for a result.
    pub fn poison_outputs(&self, poison: bool) {
        self.0.poison.store(poison, Ordering::Relaxed);
    }

    pub(super) fn poisons_outputs(&self) -> bool {
        self.0.poison.load(Ordering::Relaxed)
    }

    /// Waits until all work is done.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if something on the way failed.
    pub fn synchronize(&self) -> Result<()> {
        self.count_host_wait();
        self.0.stream.synchronize().map_err(|error| KernelError::cuda("running kernels", error))
    }

    /// How often the host has waited for this GPU so far. A training step waits once, at its end.
    pub fn host_waits(&self) -> u64 {
        self.0.host_waits.load(Ordering::Relaxed)
    }

    /// Every call that blocks until the device is done with something counts itself here.
    pub(super) fn count_host_wait(&self) {
        self.0.host_waits.fetch_add(1, Ordering::Relaxed);
    }

    /// Page-locked host memory for a copy.
    pub(super) fn page_locked(&self, bytes: usize) -> Result<PageLocked> {
        self.0.page_locked.take(&self.0.context, bytes)
    }

    /// Device memory in use.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver does not answer.
    pub fn memory_use(&self) -> Result<MemoryUse> {
        use sys::CUmemPool_attribute_enum as Attribute;
        let pool = self.pool()?;
        let read = |attribute| -> Result<usize> {
            let mut value = 0_u64;
            // SAFETY: these attributes are 64-bit numbers.
            unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut value).cast()) }
                .map_err(|error| KernelError::cuda("cuMemPoolGetAttribute", error))?;
            Ok(value as usize)
        };
        Ok(MemoryUse {
            used: read(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?,
            peak: read(Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?,
            reserved_peak: read(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)?,
        })
    }

    /// Takes memory for buffers that are still to come, so that none of them has to ask the device,
    /// which other programs use as well.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`] if the device does not have so much.
    pub fn reserve(&self, bytes: usize) -> Result<()> {
        // What is given back stays in the pool.
        drop(Buffer::uninitialised(self, bytes)?);
        let (mut peak, pool) = (0_u64, self.pool()?);
        let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        // SAFETY: the attribute is a 64-bit number, which 0 sets to what is in use now.
        unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut peak).cast()) }
            .map_err(|error| KernelError::cuda("cuMemPoolSetAttribute", error))
    }

    /// Free and total memory of the device, all processes together, bytes.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver does not answer.
    pub fn memory_info(&self) -> Result<(usize, usize)> {
        self.0.context.mem_get_info().map_err(|error| KernelError::cuda("cuMemGetInfo", error))
    }

    /// Uninitialised memory for `len` values of type `T`.
    pub(crate) fn alloc<T: Copy>(&self, len: usize) -> Result<Buffer> {
        let bytes =
            len.checked_mul(size_of::<T>()).ok_or_else(|| self.out_of_memory(usize::MAX))?;
        Buffer::uninitialised(self, bytes)
    }

    /// A copy of host values on the device.
    pub(crate) fn upload<T: Copy>(&self, values: &[T]) -> Result<Buffer> {
        let mut buffer = self.alloc::<T>(values.len())?;
        buffer.write(values)?;
        Ok(buffer)
    }

    /// A kernel of a module, compiled with these macros if it is not yet.
    pub(crate) fn kernel(
        &self,
        module: &'static Module,
        function: &'static str,
        defines: &[(&'static str, i64)],
    ) -> Result<Kernel> {
        let key = (module.name, defines.to_vec());
        let mut modules = self.0.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = match modules.get(&key) {
            Some(loaded) => loaded.clone(),
            None => {
                let start = Instant::now();
                let (cubin, origin) =
                    self.0.cache.cubin(module, defines, &self.0.properties.arch())?;
                let loaded = Arc::new(LoadedModule::load(self, &cubin)?);
                self.count_kernels(origin, start.elapsed().as_secs_f64());
                modules.insert(key, loaded.clone());
                loaded
            }
        };
        drop(modules);
        loaded.kernel(self, function)
    }

    /// How kernels came to be so far.
    pub fn kernel_times(&self) -> KernelTimes {
        *self.0.kernel_times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_kernels(&self, origin: Origin, seconds: f64) {
        let mut times = self.0.kernel_times.lock().unwrap_or_else(PoisonError::into_inner);
        match origin {
            Origin::Compiler => {
                (times.compiled, times.compile_seconds) =
                    (times.compiled + 1, times.compile_seconds + seconds)
            }
            Origin::Disk => {
                (times.cached, times.read_seconds) =
                    (times.cached + 1, times.read_seconds + seconds)
            }
        }
    }

    pub(super) fn matmul_state(&self) -> std::sync::MutexGuard<'_, Matmul> {
        self.0.matmul.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the device the current one of this thread and returns its stream.
    pub(super) fn stream(&self) -> Result<sys::CUstream> {
        self.bind()?;
        Ok(self.0.stream.cu_stream())
    }

    pub(super) fn bind(&self) -> Result<()> {
        self.0.context.bind_to_thread().map_err(|error| KernelError::cuda("cuCtxSetCurrent", error))
    }

    /// What to say when memory runs out.
    pub(super) fn out_of_memory(&self, bytes: usize) -> KernelError {
        let (free, total) = self.memory_info().unwrap_or((0, 0));
        KernelError::OutOfMemory { device: self.to_string(), bytes, free, total }
    }

    fn pool(&self) -> Result<sys::CUmemoryPool> {
        self.bind()?;
        default_pool(&self.0.context)
    }
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        self.0.properties.ordinal == other.0.properties.ordinal
    }
}

impl Eq for Gpu {}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gpu").field(&self.0.properties).finish()
    }
}

impl std::fmt::Display for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cuda:{}", self.0.properties.ordinal)
    }
}

fn default_pool(context: &CudaContext) -> Result<sys::CUmemoryPool> {
    // SAFETY: the context is open, so its device exists.
    unsafe { result::device::get_default_mem_pool(context.cu_device()) }
        .map_err(|error| KernelError::cuda("cuDeviceGetDefaultMemPool", error))
}

/// Lets the pool keep what is given back: a step takes the same buffers again and again.
fn keep_freed_memory(context: &CudaContext) -> Result<()> {
    let pool = default_pool(context)?;
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute is a 64-bit number.
    unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast()) }
        .map_err(|error| KernelError::cuda("cuMemPoolSetAttribute", error))
}

impl KernelError {
    /// A call of the driver failed.
    pub(crate) fn cuda(call: &'static str, error: result::DriverError) -> Self {
        Self::Cuda { call, message: driver_message(error) }
    }
}
