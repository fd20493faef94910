//! Launches of kernels.

use std::ffi::c_void;

use cudarc::driver::sys;

use super::Gpu;
use super::kernel::Kernel;
use super::module::Define;
use super::parameters::Parameters;
use crate::{KernelError, Result};

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

    /// Lets the kernel start before the previous one has ended, on cards that can (sm_90 and
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
    /// [`KernelError::Argument`] for a grid that is too large, [`KernelError::Compile`] if the
    /// module does not compile, [`KernelError::Cuda`] if the driver refuses the launch.
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
            return Err(KernelError::value(kernel.function(), "grid", expected, actual));
        }
        let stream = self.stream()?;
        let kernels = self.kernels();
        let function = kernels.get(kernel, defines)?;
        kernels.allow_shared(function, shared)?;
        let overlapping = launch.overlapping && self.properties().compute_capability >= 90;
        if overlapping {
            function.prefer_shared()?;
        }
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
        let (handle, no_extra) = (function.handle(), std::ptr::null_mut());
        // SAFETY: the function is loaded; the configuration and the parameters fit it and live
        // until the call returns, which copies them; memory that they point to is freed in stream
        // order. What the kernel does is the promise of its source.
        unsafe {
            sys::cuLaunchKernelEx(&raw const config, handle, parameters.as_mut_ptr(), no_extra)
        }
        .result()
        .map_err(|error| KernelError::cuda(kernel.function(), error))
    }
}
