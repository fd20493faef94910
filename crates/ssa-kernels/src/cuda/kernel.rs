//! Kernels: loaded once for each GPU and set of macros, then launched without a lock or an
//! allocation.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use cudarc::driver::{result, sys};

use super::Gpu;
use super::gpu::GpuDevice;
use super::module::{Define, Module};
use super::parameters::Parameters;
use crate::{KernelError, Result};

/// A kernel of a module.
#[derive(Debug)]
pub(crate) struct Kernel {
    module: &'static Module,
    function: &'static str,
}

impl Kernel {
    /// The kernel that the source of `module` calls `function`.
    pub(crate) const fn new(module: &'static Module, function: &'static str) -> Self {
        Self { module, function }
    }
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch<'a> {
    grid: [usize; 3],
    threads: usize,
    shared: usize,
    defines: &'a [Define],
    kernel: Option<&'static Kernel>,
    overlapping: bool,
}

impl<'a> Launch<'a> {
    /// `grid` blocks of `threads` threads. A grid without blocks does nothing.
    pub(crate) fn new(grid: [usize; 3], threads: usize) -> Self {
        Self { grid, threads, shared: 0, defines: &[], kernel: None, overlapping: false }
    }

    /// Dynamic shared memory of a block, bytes.
    pub(crate) fn shared(self, bytes: usize) -> Self {
        Self { shared: bytes, ..self }
    }

    /// Launches a kernel of another module that takes the same parameters as the one that
    /// `kernel!` declares.
    pub(crate) fn kernel(self, kernel: &'static Kernel) -> Self {
        Self { kernel: Some(kernel), ..self }
    }

    /// Lets the kernel start before the one ahead of it has ended, on cards that can (sm_90 and
    /// newer). Its source waits where it must: `dependent_launch.cuh`.
    pub(crate) fn overlapping(self) -> Self {
        Self { overlapping: true, ..self }
    }

    /// The macros that the module is compiled with.
    pub(crate) fn defines(self, defines: &'a [Define]) -> Self {
        Self { defines, ..self }
    }
}

impl Gpu {
    /// Queues a kernel. The first launch with a set of macros loads the module, which may compile
    /// it.
    ///
    /// # Errors
    /// [`KernelError::Argument`] for a grid that is too large, [`KernelError::Compile`] if the module
    /// does not compile, [`KernelError::Cuda`] if the driver refuses the launch.
    pub(crate) fn launch<P: Parameters>(&self, launch: Launch<'_>, parameters: P) -> Result<()> {
        let mut parameters = parameters;
        let kernel = launch.kernel.unwrap_or_else(P::kernel);
        // SAFETY: the kernel's only parameter has the layout of `P`, which borrows the memory that
        // it points to.
        unsafe { self.queue(kernel, launch, &mut [(&raw mut parameters).cast()]) }
    }

    /// # Safety
    /// The pointers are those to the kernel's parameters, and what these point to is not freed
    /// before the call returns.
    pub(super) unsafe fn queue(
        &self,
        kernel: &'static Kernel,
        launch: Launch<'_>,
        parameters: &mut [*mut c_void],
    ) -> Result<()> {
        let Launch { grid: [x, y, z], threads, shared, defines, .. } = launch;
        if launch.grid.contains(&0) {
            return Ok(());
        }
        if x > i32::MAX as usize || y > 65_535 || z > 65_535 {
            let actual = format!("{:?}", launch.grid);
            let expected = "at most [2^31 - 1, 65535, 65535]";
            return Err(KernelError::value(kernel.function, "grid", expected, actual));
        }
        let stream = self.stream()?;
        let kernels = &self.device().kernels;
        let function = kernels.get(self.device(), kernel, defines)?;
        kernels.allow_shared(function, shared)?;
        let overlapping = launch.overlapping && self.properties().compute_capability >= 90;
        let mut overlap = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: x as u32,
            gridDimY: y as u32,
            gridDimZ: z as u32,
            blockDimX: threads as u32,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared as u32,
            hStream: stream,
            attrs: &raw mut overlap,
            numAttrs: u32::from(overlapping),
        };
        let (handle, no_extra) = (function.handle, std::ptr::null_mut());
        // SAFETY: the function is loaded; the configuration and the parameters fit it and live
        // until the call returns, which copies them; memory that they point to is freed in stream
        // order. What the kernel does is the promise of its source.
        unsafe {
            sys::cuLaunchKernelEx(&raw const config, handle, parameters.as_mut_ptr(), no_extra)
        }
        .result()
        .map_err(|error| KernelError::cuda(kernel.function, error))
    }
}

/// Shared memory that a block may use without asking for more, static and dynamic together.
const SHARED_WITHOUT_ASKING: usize = 48 << 10;

/// A kernel in a GPU's context.
struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that blocks are allowed so far, bytes.
    shared_limit: AtomicUsize,
}

// SAFETY: a function handle may be used from any thread that has bound the context, which every
// call does.
unsafe impl Send for Function {}
// SAFETY: as above; the limit is atomic.
unsafe impl Sync for Function {}

impl Function {
    fn new(module: sys::CUmodule, name: &'static str) -> Result<Self> {
        let symbol = CString::new(name).unwrap_or_default();
        // SAFETY: the module is loaded and stays so.
        let handle = unsafe { result::module::get_function(module, symbol) }
            .map_err(|error| KernelError::cuda("cuModuleGetFunction", error))?;
        let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        // SAFETY: the handle belongs to a module that is loaded.
        let declared = unsafe { result::function::get_function_attribute(handle, attribute) }
            .map_err(|error| KernelError::cuda("cuFuncGetAttribute", error))?;
        let limit = SHARED_WITHOUT_ASKING.saturating_sub(usize::try_from(declared).unwrap_or(0));
        Ok(Self { handle, shared_limit: AtomicUsize::new(limit) })
    }
}

const BUCKETS: usize = 64;

/// The kernels that a GPU has loaded: a hash table to which entries are only ever added, so that
/// finding one takes neither a lock nor an allocation.
pub(super) struct Kernels {
    buckets: [Link; BUCKETS],
    modules: Mutex<HashMap<ModuleKey, LoadedModule>>,
}

/// The rest of a bucket's entries.
type Link = OnceLock<Box<Entry>>;

struct Entry {
    kernel: &'static Kernel,
    defines: Vec<Define>,
    function: Function,
    next: Link,
}

/// Name of a module and the macros that it is compiled with.
type ModuleKey = (&'static str, Vec<Define>);

impl Kernels {
    pub(super) fn new() -> Self {
        Self { buckets: [const { OnceLock::new() }; BUCKETS], modules: Mutex::default() }
    }

    /// The kernel compiled with these macros.
    fn get(
        &self,
        device: &GpuDevice,
        kernel: &'static Kernel,
        defines: &[Define],
    ) -> Result<&Function> {
        let address = std::ptr::from_ref(kernel).addr();
        let first = &self.buckets[address / size_of::<Kernel>() % BUCKETS];
        let link = match find(first, kernel, defines) {
            Ok(function) => return Ok(function),
            Err(end) => end,
        };
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the owner of the lock adds entries: look at those added while waiting for it.
        let link = match find(link, kernel, defines) {
            Ok(function) => return Ok(function),
            Err(end) => end,
        };
        let key = (kernel.module.name, defines.to_vec());
        let module = match modules.get(&key) {
            Some(module) => *module,
            None => {
                let module = LoadedModule::new(device, kernel.module, defines)?;
                modules.insert(key, module);
                module
            }
        };
        let function = Function::new(module.0, kernel.function)?;
        let (defines, next) = (defines.to_vec(), OnceLock::new());
        Ok(&link.get_or_init(|| Box::new(Entry { kernel, defines, function, next })).function)
    }

    /// Allows blocks of a kernel to use this much dynamic shared memory.
    fn allow_shared(&self, function: &Function, bytes: usize) -> Result<()> {
        if bytes <= function.shared_limit.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Of two threads that raise the limit, the larger value has to be set last.
        let _lock = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes <= function.shared_limit.load(Ordering::Relaxed) {
            return Ok(());
        }
        let attribute =
            sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the handle belongs to a module that is loaded.
        unsafe {
            result::function::set_function_attribute(function.handle, attribute, bytes as i32)
        }
        .map_err(|error| KernelError::cuda("cuFuncSetAttribute", error))?;
        function.shared_limit.store(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// The kernel among the entries from `link` on, or the link where the next entry is added.
fn find<'a>(
    mut link: &'a Link,
    kernel: &'static Kernel,
    defines: &[Define],
) -> std::result::Result<&'a Function, &'a Link> {
    while let Some(entry) = link.get() {
        if std::ptr::eq(entry.kernel, kernel) && entry.defines == defines {
            return Ok(&entry.function);
        }
        link = &entry.next;
    }
    Err(link)
}

/// A module in a GPU's context, which unloads it when it ends.
#[derive(Clone, Copy)]
struct LoadedModule(sys::CUmodule);

// SAFETY: a module handle may be used from any thread that has bound the context, which every call
// does.
unsafe impl Send for LoadedModule {}

impl LoadedModule {
    fn new(device: &GpuDevice, module: &'static Module, defines: &[Define]) -> Result<Self> {
        let start = Instant::now();
        let (cubin, origin) = device.cache.cubin(module, defines, &device.properties.arch())?;
        device.bind()?;
        // SAFETY: `cubin` is a whole image: it came from the compiler, or from the cache with a
        // matching checksum.
        let handle = unsafe { result::module::load_data(cubin.as_ptr().cast()) }
            .map_err(|error| KernelError::cuda("cuModuleLoadData", error))?;
        device.count_module(origin, start.elapsed().as_secs_f64());
        Ok(Self(handle))
    }
}
