//! Compiled kernels and how they are started.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{result, sys};

use super::{Buffer, Gpu};
use crate::{KernelError, Result, Tensor};

/// A module loaded into a GPU's context, which unloads it at its end.
pub(super) struct LoadedModule {
    module: sys::CUmodule,
    functions: Mutex<HashMap<&'static str, Function>>,
}

// SAFETY: a module handle may be used from any thread that has bound the context, which every call
// does.
unsafe impl Send for LoadedModule {}
// SAFETY: as above; the table of functions has its own lock.
unsafe impl Sync for LoadedModule {}

/// Shared memory that a block may use without asking for more, static and dynamic together.
const SHARED_WITHOUT_ASKING: usize = 48 << 10;

#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that it was allowed so far.
    shared_limit: usize,
}

impl LoadedModule {
    pub(super) fn load(gpu: &Gpu, cubin: &[u8]) -> Result<Self> {
        gpu.bind()?;
        // SAFETY: `cubin` is a whole image: it came from the compiler, or from the cache with a
        // matching checksum.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) }
            .map_err(|error| KernelError::cuda("cuModuleLoadData", error))?;
        Ok(Self { module, functions: Mutex::default() })
    }

    pub(super) fn kernel(self: &Arc<Self>, gpu: &Gpu, name: &'static str) -> Result<Kernel> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if !functions.contains_key(name) {
            let symbol = CString::new(name).unwrap_or_default();
            // SAFETY: the module is loaded and stays so.
            let handle = unsafe { result::module::get_function(self.module, symbol) }
                .map_err(|error| KernelError::cuda("cuModuleGetFunction", error))?;
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
            // SAFETY: the handle belongs to this module, which is loaded.
            let declared = unsafe { result::function::get_function_attribute(handle, attribute) }
                .map_err(|error| KernelError::cuda("cuFuncGetAttribute", error))?;
            let shared_limit =
                SHARED_WITHOUT_ASKING.saturating_sub(usize::try_from(declared).unwrap_or(0));
            functions.insert(name, Function { handle, shared_limit });
        }
        drop(functions);
        Ok(Kernel { gpu: gpu.clone(), module: self.clone(), name })
    }

    /// The function, allowed to use this much dynamic shared memory.
    fn function(&self, name: &'static str, shared: usize) -> Result<sys::CUfunction> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || KernelError::Cuda {
            call: "cuModuleGetFunction",
            message: format!("no kernel {name}"),
        };
        let function = functions.get_mut(name).ok_or_else(missing)?;
        if shared > function.shared_limit {
            let attribute =
                sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the handle belongs to this module, which is loaded.
            unsafe {
                result::function::set_function_attribute(function.handle, attribute, shared as i32)
            }
            .map_err(|error| KernelError::cuda("cuFuncSetAttribute", error))?;
            function.shared_limit = shared;
        }
        Ok(function.handle)
    }
}

/// A compiled kernel.
pub(crate) struct Kernel {
    gpu: Gpu,
    module: Arc<LoadedModule>,
    name: &'static str,
}

impl Kernel {
    /// Begins a launch of `grid` blocks of `threads` threads; the arguments follow in the kernel's
    /// order.
    pub(crate) fn launch(&self, grid: [usize; 3], threads: usize) -> Launch<'_> {
        Launch {
            kernel: self,
            grid,
            threads,
            shared: 0,
            arguments: Vec::with_capacity(16),
            failed: None,
        }
    }
}

/// A launch that is being put together.
#[must_use = "a launch starts with `run`"]
pub(crate) struct Launch<'a> {
    kernel: &'a Kernel,
    grid: [usize; 3],
    threads: usize,
    shared: usize,
    /// Every argument in the first bytes of a word: CUDA reads as many as the parameter has.
    arguments: Vec<u64>,
    /// The first argument that could not be had.
    failed: Option<KernelError>,
}

impl Launch<'_> {
    /// Dynamic shared memory of a block, bytes.
    pub(crate) fn shared(mut self, bytes: usize) -> Self {
        self.shared = bytes;
        self
    }

    /// Pointer to a tensor that is read.
    pub(crate) fn input(self, tensor: &Tensor) -> Self {
        let address = tensor.device_input();
        self.address(address)
    }

    /// Pointer to a tensor of which every element will be written.
    pub(crate) fn output(self, tensor: &mut Tensor) -> Self {
        let address = tensor.device_output();
        self.address(address)
    }

    /// Pointer to a tensor that is changed in place.
    pub(crate) fn in_place(self, tensor: &mut Tensor) -> Self {
        let address = tensor.device_in_place();
        self.address(address)
    }

    /// Pointer to a gradient, then an `int`: whether the kernel adds to it (1) or, since it is
    /// still zero, sets every element (0).
    pub(crate) fn accumulate(mut self, tensor: &mut Tensor) -> Self {
        match tensor.device_accumulate() {
            Ok((address, add)) => {
                self.arguments.push(address);
                self.arguments.push(u64::from(add));
            }
            Err(error) => self.failed = self.failed.or(Some(error)),
        }
        self
    }

    /// Pointer to scratch or a table that is read.
    pub(crate) fn buffer(mut self, buffer: &Buffer) -> Self {
        self.arguments.push(buffer.address());
        self
    }

    /// Pointer to scratch that is written.
    pub(crate) fn buffer_mut(mut self, buffer: &mut Buffer) -> Self {
        self.arguments.push(buffer.address());
        self
    }

    /// Pointer to scratch or a table that is read, or a null pointer.
    pub(crate) fn optional(self, buffer: Option<&Buffer>) -> Self {
        match buffer {
            Some(buffer) => self.buffer(buffer),
            None => self.null(),
        }
    }

    /// A null pointer, for an argument that is optional.
    pub(crate) fn null(mut self) -> Self {
        self.arguments.push(0);
        self
    }

    /// An `int`; sizes that do not fit are refused.
    pub(crate) fn i32(mut self, value: usize) -> Self {
        match i32::try_from(value) {
            Ok(value) => self.arguments.push(u64::from(value as u32)),
            Err(_) => {
                let error = KernelError::value(self.kernel.name, "a size", "below 2^31", value);
                self.failed = self.failed.or(Some(error));
            }
        }
        self
    }

    /// An `i64`.
    pub(crate) fn i64(mut self, value: usize) -> Self {
        self.arguments.push(value as u64);
        self
    }

    /// A `float`.
    pub(crate) fn f32(mut self, value: f32) -> Self {
        self.arguments.push(u64::from(value.to_bits()));
        self
    }

    /// A `double`.
    pub(crate) fn f64(mut self, value: f64) -> Self {
        self.arguments.push(value.to_bits());
        self
    }

    /// Queues the launch. A grid without blocks does nothing.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`] if an output finds no place, [`KernelError::Cuda`] if the
    /// launch is refused.
    pub(crate) fn run(mut self) -> Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.grid.contains(&0) {
            return Ok(());
        }
        let Self { kernel, grid: [x, y, z], threads, shared, .. } = self;
        if x > i32::MAX as usize || y > 65_535 || z > 65_535 {
            return Err(KernelError::value(
                kernel.name,
                "grid",
                "at most [2^31 - 1, 65535, 65535]",
                format!("{:?}", self.grid),
            ));
        }
        let function = kernel.module.function(kernel.name, shared)?;
        let stream = kernel.gpu.stream()?;
        let mut parameters: Vec<*mut c_void> =
            self.arguments.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
        let (grid, block) = ((x as u32, y as u32, z as u32), (threads as u32, 1, 1));
        // SAFETY: the function is loaded; every argument is a word that lives until the call
        // returns, which copies it; the buffers behind the pointers are given back in stream order.
        // What the kernel does is the promise of its source.
        unsafe {
            result::launch_kernel(function, grid, block, shared as u32, stream, &mut parameters)
        }
        .map_err(|error| KernelError::Cuda {
            call: kernel.name,
            message: super::library::driver_message(error),
        })
    }

    fn address(mut self, address: Result<u64>) -> Self {
        match address {
            Ok(address) => self.arguments.push(address),
            Err(error) => self.failed = self.failed.or(Some(error)),
        }
        self
    }
}
