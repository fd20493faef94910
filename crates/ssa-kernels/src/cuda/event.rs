//! Time as the device sees it.

use cudarc::driver::{result, sys};

use super::Gpu;
use crate::{KernelError, Result};

/// Measures the time that queued work takes on the device.
pub struct Stopwatch {
    gpu: Gpu,
    start: sys::CUevent,
    stop: sys::CUevent,
}

impl Stopwatch {
    /// Starts before whatever is queued next.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub fn start(gpu: &Gpu) -> Result<Self> {
        let stream = gpu.stream()?;
        let create = || {
            result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)
                .map_err(|error| KernelError::cuda("cuEventCreate", error))
        };
        let stopwatch = Self { gpu: gpu.clone(), start: create()?, stop: create()? };
        // SAFETY: event and stream are of this context and open.
        unsafe { result::event::record(stopwatch.start, stream) }
            .map_err(|error| KernelError::cuda("cuEventRecord", error))?;
        Ok(stopwatch)
    }

    /// Waits for the work queued since the start and returns its milliseconds.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the work failed.
    pub fn stop(self) -> Result<f64> {
        let failed = |error| KernelError::cuda("running kernels", error);
        let stream = self.gpu.stream()?;
        // SAFETY: event and stream are of this context and open.
        unsafe { result::event::record(self.stop, stream) }.map_err(failed)?;
        self.gpu.count_host_wait();
        // SAFETY: the event was recorded.
        unsafe { result::event::synchronize(self.stop) }.map_err(failed)?;
        // SAFETY: both events were recorded and have passed.
        let milliseconds =
            unsafe { result::event::elapsed(self.start, self.stop) }.map_err(failed)?;
        Ok(f64::from(milliseconds))
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        for event in [self.start, self.stop] {
            // SAFETY: the event is open and not used after this. A failure means that the device is
            // lost.
            let _ = unsafe { result::event::destroy(event) };
        }
    }
}
