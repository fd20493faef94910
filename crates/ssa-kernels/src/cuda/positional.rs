//! Launches whose arguments are still positional. Delete this file and `tensor/positional.rs` with
//! the last of them.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use super::kernel::{Kernel, Launch as Configuration};
use super::module::{Define, Module};
use super::parameters::Element;
use super::{Buffer, Gpu};
use crate::{KernelError, Result, Tensor};

/// A kernel of a module with its macros.
pub(crate) struct PositionalKernel {
    gpu: Gpu,
    kernel: &'static Kernel,
    name: &'static str,
    defines: Vec<Define>,
}

impl Gpu {
    /// A kernel of a module, compiled with these macros if it is not yet.
    pub(crate) fn kernel(
        &self,
        module: &'static Module,
        function: &'static str,
        defines: &[Define],
    ) -> Result<PositionalKernel> {
        static KERNELS: Mutex<Option<HashMap<(&str, &str), &'static Kernel>>> = Mutex::new(None);
        let mut kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
        let kernel = kernels
            .get_or_insert_default()
            .entry((module.name, function))
            .or_insert_with(|| Box::leak(Box::new(Kernel::new(module, function))));
        let defines = defines.to_vec();
        Ok(PositionalKernel { gpu: self.clone(), kernel, name: function, defines })
    }
}

impl PositionalKernel {
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
    kernel: &'a PositionalKernel,
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
    pub(crate) fn buffer<T: Element>(mut self, buffer: &Buffer<T>) -> Self {
        self.arguments.push(buffer.address());
        self
    }

    /// Pointer to scratch that is written.
    pub(crate) fn buffer_mut<T: Element>(mut self, buffer: &mut Buffer<T>) -> Self {
        self.arguments.push(buffer.address());
        self
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
        let Self { kernel, grid, threads, shared, .. } = self;
        let mut parameters: Vec<*mut c_void> =
            self.arguments.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
        let launch = Configuration::new(grid, threads).shared(shared).defines(&kernel.defines);
        // SAFETY: every argument is a word that lives until the call returns; the kernel's source
        // has parameters in this order.
        unsafe { kernel.gpu.queue(kernel.kernel, launch, &mut parameters) }
    }

    fn address(mut self, address: Result<u64>) -> Self {
        match address {
            Ok(address) => self.arguments.push(address),
            Err(error) => self.failed = self.failed.or(Some(error)),
        }
        self
    }
}
