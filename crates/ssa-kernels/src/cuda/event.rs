//! Points in the work of a stream: order between streams, and time.

use cudarc::driver::{CudaEvent, sys};

use super::Gpu;
use crate::{KernelError, Result};

/// A point in the work of a stream: everything that was queued on it so far.
pub struct Event(CudaEvent);

impl Event {
    /// The point after everything that is queued on the stream of `gpu`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub fn record(gpu: &Gpu) -> Result<Self> {
        let event = create(gpu, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        record(&event, gpu)?;
        Ok(Self(event))
    }

    /// Whether everything before this point is done.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if some of it failed.
    pub(super) fn is_done(&self) -> Result<bool> {
        // SAFETY: the event is open.
        match unsafe { sys::cuEventQuery(self.0.cu_event()) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            status => status
                .result()
                .map(|()| true)
                .map_err(|error| KernelError::cuda("running kernels", error)),
        }
    }

    /// Makes the stream of `gpu` start what is queued on it from now on only after this point. The
    /// host does not wait.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub fn wait(&self, gpu: &Gpu) -> Result<()> {
        let waits = gpu.cuda_stream().wait(&self.0);
        waits.map_err(|error| KernelError::cuda("cuStreamWaitEvent", error))
    }
}

fn create(gpu: &Gpu, flags: sys::CUevent_flags) -> Result<CudaEvent> {
    let event = gpu.context().new_event(Some(flags));
    event.map_err(|error| KernelError::cuda("cuEventCreate", error))
}

fn record(event: &CudaEvent, gpu: &Gpu) -> Result<()> {
    event.record(gpu.cuda_stream()).map_err(|error| KernelError::cuda("cuEventRecord", error))
}

/// Measures the time that queued work takes on the device.
pub struct Stopwatch {
    gpu: Gpu,
    start: CudaEvent,
    stop: CudaEvent,
}

impl Stopwatch {
    /// Starts before whatever is queued next.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub fn start(gpu: &Gpu) -> Result<Self> {
        let [start, stop] = [(); 2].map(|()| create(gpu, sys::CUevent_flags::CU_EVENT_DEFAULT));
        let stopwatch = Self { gpu: gpu.clone(), start: start?, stop: stop? };
        record(&stopwatch.start, gpu)?;
        Ok(stopwatch)
    }

    /// Waits for the work queued since the start and returns its milliseconds.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the work failed.
    pub fn stop(self) -> Result<f64> {
        record(&self.stop, &self.gpu)?;
        self.gpu.count_host_wait();
        let milliseconds = self.start.elapsed_ms(&self.stop);
        milliseconds.map(f64::from).map_err(|error| KernelError::cuda("running kernels", error))
    }
}
