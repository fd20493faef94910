//! Queued work that is launched again and again: a CUDA graph.

use cudarc::driver::{result, sys};

use super::Gpu;
use crate::{KernelError, Result};

/// Work that was recorded once and runs as often as it is replayed, at the cost of one launch.
///
/// The work runs on memory of `State`, which the recording owns: it is not freed while the work may
/// run, and only the work changes it. What differs between replays is therefore data on the device.
pub struct Recording<State> {
    gpu: Gpu,
    graph: sys::CUgraphExec,
    state: State,
}

// SAFETY: a graph may be launched and destroyed from any thread that has bound the context, which
// every call does, by one at a time, which `&mut self` ensures.
unsafe impl<State: Send> Send for Recording<State> {}

impl<State: 'static> Recording<State> {
    /// Records what `work` queues on the stream of `gpu`, without running it.
    ///
    /// `work` captures nothing, so it can reach no memory but that of `state` and what it makes
    /// itself; and it can make none, since allocating, uploading and waiting are refused. So it
    /// must have run once before: then its kernels are loaded and its tables are on the device.
    ///
    /// # Errors
    /// Those of `work`, and [`KernelError::Cuda`] if the driver refuses to record it.
    pub fn new(gpu: &Gpu, mut state: State, work: fn(&mut State) -> Result<()>) -> Result<Self> {
        let stream = gpu.stream()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is open.
        unsafe { result::stream::begin_capture(stream, mode) }
            .map_err(|error| KernelError::cuda("cuStreamBeginCapture", error))?;
        gpu.set_recording(true);
        let recorded = work(&mut state);
        gpu.set_recording(false);
        // SAFETY: the capture of this stream began above.
        let captured = unsafe { result::stream::end_capture(stream) };
        let captured = captured.map_err(|error| KernelError::cuda("cuStreamEndCapture", error));
        // The error of the work explains the one of the capture.
        recorded?;
        let captured = captured?;
        let flags = sys::CUgraphInstantiate_flags(0);
        // SAFETY: the graph was captured and is not used by anything else.
        let graph = unsafe { result::graph::instantiate(captured, flags) };
        // SAFETY: as above; what was instantiated does not need it.
        let _ = unsafe { result::graph::destroy(captured) };
        let graph = graph.map_err(|error| KernelError::cuda("cuGraphInstantiate", error))?;
        Ok(Self { gpu: gpu.clone(), graph, state })
    }

    /// Queues the recorded work.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub fn replay(&mut self) -> Result<()> {
        let stream = self.gpu.stream()?;
        // SAFETY: graph and stream are open, and the memory that the graph uses is that of the
        // state, which lives as long as it does.
        unsafe { result::graph::launch(self.graph, stream) }
            .map_err(|error| KernelError::cuda("cuGraphLaunch", error))
    }

    /// The memory that the work uses.
    pub fn state(&self) -> &State {
        &self.state
    }
}

impl<State> Drop for Recording<State> {
    fn drop(&mut self) {
        if self.gpu.stream().is_ok() {
            // SAFETY: the graph is open and not used after this; launches that are queued keep what
            // they need. A failure means that the device is lost.
            let _ = unsafe { result::graph::exec_destroy(self.graph) };
        }
    }
}

impl<State> std::fmt::Debug for Recording<State> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recording on {}", self.gpu)
    }
}
