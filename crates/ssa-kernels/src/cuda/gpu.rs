//! An opened device and its streams.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, result, sys};

use super::cache::KernelCache;
use super::kernel::{KernelTimes, Kernels};
use super::library::{Library, driver_message};
use super::matmul::Matmul;
use super::page_locked::PageLockedPool;
use super::properties::{GpuProperties, properties};
use crate::{KernelError, Result};

/// An opened GPU with one stream. Cloning gives another handle to the same stream.
///
/// Work is queued and runs in the order of the stream; only reading results waits for it. So an
/// error inside a kernel shows at the next reading.
///
/// Two handles are equal if they are clones of each other. Streams of the same device
/// ([`with_stream`](Self::with_stream)) are different: ops refuse to mix their tensors, and
/// [`Tensor::to_device`](crate::Tensor::to_device) hands a tensor from one to the other in the
/// order of both.
#[derive(Clone)]
pub struct Gpu(Arc<GpuStream>);

struct GpuStream {
    stream: Arc<CudaStream>,
    device: Arc<GpuDevice>,
    /// Whether work is recorded instead of run: see `Recording`.
    records: AtomicBool,
}

/// What all streams of a device share.
struct GpuDevice {
    properties: GpuProperties,
    kernels: Kernels,
    context: Arc<CudaContext>,
    matmul: Mutex<Matmul>,
    page_locked: PageLockedPool,
    poison: AtomicBool,
    host_waits: AtomicU64,
}

/// Device memory of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes in tensors and scratch now.
    pub used: usize,
    /// The maximum of `used` so far.
    pub peak: usize,
    /// The most bytes that the pool ever held, including gaps between buffers.
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
        let context = CudaContext::new(ordinal)
            .map_err(|error| KernelError::cuda("opening the GPU", error))?;
        keep_freed_memory(&context)?;
        let matmul = Mutex::new(Matmul::new(&properties, &cache)?);
        Self::on_device(Arc::new(GpuDevice {
            kernels: Kernels::new(context.clone(), cache, properties.arch()),
            properties,
            context,
            matmul,
            page_locked: PageLockedPool::default(),
            poison: AtomicBool::new(false),
            host_waits: AtomicU64::new(0),
        }))
    }

    /// The same device with a new stream, whose work runs alongside that of all others. An
    /// [`Event`](super::Event) orders work of two streams.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub fn with_stream(&self) -> Result<Self> {
        Self::on_device(self.0.device.clone())
    }

    fn on_device(device: Arc<GpuDevice>) -> Result<Self> {
        let stream = device
            .context
            .new_stream()
            .map_err(|error| KernelError::cuda("cuStreamCreate", error))?;
        let records = AtomicBool::new(false);
        Ok(Self(Arc::new(GpuStream { stream, device, records })))
    }

    /// The properties of the device.
    pub fn properties(&self) -> &GpuProperties {
        &self.0.device.properties
    }

    /// Fills every new output with NaN from now on, so that an element that is never written cannot
    /// pass for a result.
    pub fn poison_outputs(&self, poison: bool) {
        self.0.device.poison.store(poison, Ordering::Relaxed);
    }

    pub(super) fn poisons_outputs(&self) -> bool {
        self.0.device.poison.load(Ordering::Relaxed)
    }

    /// Waits until all work of the stream is done.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if any of it failed.
    pub fn synchronize(&self) -> Result<()> {
        self.check_not_recording("cuStreamSynchronize")?;
        self.count_host_wait();
        self.0.stream.synchronize().map_err(|error| KernelError::cuda("running kernels", error))
    }

    /// How often the host has waited for the device so far: for results, and for copies from
    /// memory that is not page-locked. A training step waits once, at its end.
    pub fn host_waits(&self) -> u64 {
        self.0.device.host_waits.load(Ordering::Relaxed)
    }

    /// Every call that blocks until the device is done with something counts itself here.
    pub(super) fn count_host_wait(&self) {
        self.0.device.host_waits.fetch_add(1, Ordering::Relaxed);
    }

    /// The page-locked memory for copies.
    pub(super) fn page_locked(&self) -> &PageLockedPool {
        &self.0.device.page_locked
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

    /// Free and total memory of the device, all processes together, bytes.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver does not answer.
    pub fn memory_info(&self) -> Result<(usize, usize)> {
        let info = self.0.device.context.mem_get_info();
        info.map_err(|error| KernelError::cuda("cuMemGetInfo", error))
    }

    /// Where the kernels of this process came from.
    pub fn kernel_times(&self) -> KernelTimes {
        *self.0.device.kernels.times()
    }

    /// The algorithms that were chosen for matrix products so far, as text for another process.
    pub fn matmul_algorithms(&self) -> String {
        self.matmul_state().algorithms()
    }

    /// Computes matrix products with the algorithms that another process has chosen, so that both
    /// round alike.
    pub fn adopt_matmul_algorithms(&self, text: &str) {
        self.matmul_state().adopt(text);
    }

    /// Whether two handles are streams of the same opened device.
    pub(crate) fn shares_device(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.device, &other.0.device)
    }

    pub(super) fn kernels(&self) -> &Kernels {
        &self.0.device.kernels
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.0.device.context
    }

    pub(super) fn cuda_stream(&self) -> &CudaStream {
        &self.0.stream
    }

    /// Says whether work of the stream is recorded from now on.
    pub(super) fn set_recording(&self, records: bool) {
        self.0.records.store(records, Ordering::Relaxed);
    }

    /// Refuses what must not be part of recorded work.
    pub(super) fn check_not_recording(&self, call: &'static str) -> Result<()> {
        if !self.0.records.load(Ordering::Relaxed) {
            return Ok(());
        }
        let message = "recorded work must neither allocate, upload nor wait".to_owned();
        Err(KernelError::Cuda { call, message })
    }

    pub(super) fn matmul_state(&self) -> MutexGuard<'_, Matmul> {
        self.0.device.matmul.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the device the current one of this thread and returns the stream.
    pub(super) fn stream(&self) -> Result<sys::CUstream> {
        self.0.device.bind()?;
        Ok(self.0.stream.cu_stream())
    }

    /// The error for an allocation that fails.
    pub(super) fn out_of_memory(&self, bytes: usize) -> KernelError {
        let (free, total) = self.memory_info().unwrap_or((0, 0));
        KernelError::OutOfMemory { device: self.to_string(), bytes, free, total }
    }

    pub(super) fn pool(&self) -> Result<sys::CUmemoryPool> {
        self.0.device.bind()?;
        default_pool(&self.0.device.context)
    }
}

impl GpuDevice {
    /// Makes the device the current one of this thread.
    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|error| KernelError::cuda("cuCtxSetCurrent", error))
    }
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Gpu {}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gpu").field(self.properties()).finish()
    }
}

impl std::fmt::Display for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cuda:{}", self.properties().ordinal)
    }
}

fn default_pool(context: &CudaContext) -> Result<sys::CUmemoryPool> {
    // SAFETY: the context is open, so its device exists.
    unsafe { result::device::get_default_mem_pool(context.cu_device()) }
        .map_err(|error| KernelError::cuda("cuDeviceGetDefaultMemPool", error))
}

/// Lets the pool keep freed memory: a step allocates the same buffers again and again.
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
