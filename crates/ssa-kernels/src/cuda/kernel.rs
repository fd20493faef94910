//! Kernels: loaded once for each GPU and set of macros, then found without a lock or an allocation.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use cudarc::driver::{CudaContext, result, sys};

use super::cache::{KernelCache, Origin};
use super::module::{Define, Module};
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

    /// Its name in the source.
    pub(super) fn function(&self) -> &'static str {
        self.function
    }
}

/// Where the kernels of this process came from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KernelTimes {
    /// Modules that were compiled.
    pub compiled: usize,
    /// Seconds that compiling took.
    pub compile_seconds: f64,
    /// Modules that were read from the cache.
    pub cached: usize,
    /// Seconds that reading took.
    pub read_seconds: f64,
}

/// Shared memory that a block may use without asking for more, static and dynamic together.
const SHARED_WITHOUT_ASKING: usize = 48 << 10;

/// A kernel in a GPU's context.
pub(super) struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that blocks are allowed so far, bytes.
    shared_limit: AtomicUsize,
    prefers_shared: AtomicBool,
}

// SAFETY: a function handle may be used from any thread that has bound the context, which every
// call does.
unsafe impl Send for Function {}
// SAFETY: as above; the limit is atomic.
unsafe impl Sync for Function {}

impl Function {
    /// The handle for launches.
    pub(super) fn handle(&self) -> sys::CUfunction {
        self.handle
    }

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
        let (shared_limit, prefers_shared) = (AtomicUsize::new(limit), AtomicBool::new(false));
        Ok(Self { handle, shared_limit, prefers_shared })
    }

    /// Asks for the largest shared memory of a multiprocessor. Kernels overlap only if it is
    /// divided between shared memory and first level cache alike for both.
    pub(super) fn prefer_shared(&self) -> Result<()> {
        if self.prefers_shared.load(Ordering::Relaxed) {
            return Ok(());
        }
        let attribute =
            sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
        // SAFETY: the handle belongs to a module that is loaded; the value is a percentage.
        unsafe { result::function::set_function_attribute(self.handle, attribute, 100) }
            .map_err(|error| KernelError::cuda("cuFuncSetAttribute", error))?;
        self.prefers_shared.store(true, Ordering::Relaxed);
        Ok(())
    }
}

const BUCKETS: usize = 64;

/// The kernels that a GPU has loaded: a hash table to which entries are only ever added, so that
/// finding one takes neither a lock nor an allocation.
pub(super) struct Kernels {
    context: Arc<CudaContext>,
    cache: KernelCache,
    /// The architecture that modules are compiled for.
    arch: String,
    buckets: [Link; BUCKETS],
    modules: Mutex<HashMap<ModuleKey, LoadedModule>>,
    times: Mutex<KernelTimes>,
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
    pub(super) fn new(context: Arc<CudaContext>, cache: KernelCache, arch: String) -> Self {
        let buckets = [const { OnceLock::new() }; BUCKETS];
        let (modules, times) = (Mutex::default(), Mutex::default());
        Self { context, cache, arch, buckets, modules, times }
    }

    /// Where the kernels so far came from.
    pub(super) fn times(&self) -> MutexGuard<'_, KernelTimes> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel compiled with these macros.
    pub(super) fn get(&self, kernel: &'static Kernel, defines: &[Define]) -> Result<&Function> {
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
                let module = self.load(kernel.module, defines)?;
                modules.insert(key, module);
                module
            }
        };
        let function = Function::new(module.0, kernel.function)?;
        let (defines, next) = (defines.to_vec(), OnceLock::new());
        Ok(&link.get_or_init(|| Box::new(Entry { kernel, defines, function, next })).function)
    }

    fn load(&self, module: &'static Module, defines: &[Define]) -> Result<LoadedModule> {
        let start = Instant::now();
        let (cubin, origin) = self.cache.cubin(module, defines, &self.arch)?;
        let bound = self.context.bind_to_thread();
        bound.map_err(|error| KernelError::cuda("cuCtxSetCurrent", error))?;
        // SAFETY: `cubin` is a whole image: it came from the compiler, or from the cache with a
        // matching checksum.
        let handle = unsafe { result::module::load_data(cubin.as_ptr().cast()) }
            .map_err(|error| KernelError::cuda("cuModuleLoadData", error))?;
        let (mut times, seconds) = (self.times(), start.elapsed().as_secs_f64());
        match origin {
            Origin::Compiler => {
                times.compiled += 1;
                times.compile_seconds += seconds;
            }
            Origin::Disk => {
                times.cached += 1;
                times.read_seconds += seconds;
            }
        }
        Ok(LoadedModule(handle))
    }

    /// Allows blocks of a kernel to use this much dynamic shared memory.
    pub(super) fn allow_shared(&self, function: &Function, bytes: usize) -> Result<()> {
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
