//! Whole optimizer steps.

use serde::Serialize;
use ssa_data::{PackOptions, PackedRows, Packing, Remainder, pack};
use ssa_kernels::Device;
use ssa_kernels::cuda::KernelTimes;
use ssa_model::parameter_count;
use ssa_testkit::Random;
use ssa_train::{StepMetrics, TrainPlan, Trainer, initial_model};

use crate::Result;
use crate::peaks::TERA;
use crate::timing::median;

/// Batches of random rows to rotate through.
const BATCHES: usize = 4;
/// Limit on the total number of steps: if the draw favors one stream, the other one is measured
/// with fewer steps.
const PATIENCE: usize = 4;

/// The number of steps to measure.
#[derive(Clone, Copy, Debug)]
pub struct StepSettings {
    /// Warm-up steps per stream.
    pub warm_up: usize,
    /// Measured steps per stream.
    pub steps: usize,
}

/// The steps of one stream.
#[derive(Clone, Debug, Serialize)]
pub struct StepRow {
    /// The attention that fed the next layer: `full`, `sparse`, or `mixed` if layers or
    /// micro-batches differ.
    pub stream: &'static str,
    /// Number of measured steps.
    pub steps: usize,
    /// Median time of a step in milliseconds.
    pub ms: f64,
    /// Minimum time of a step in milliseconds.
    pub fastest: f64,
    /// Tokens of a step over its median time.
    pub tokens_per_second: f64,
    /// Floating-point operations of the step (by formula, as in `ssa train`) over its median time.
    pub tflops: f64,
    /// Loss of the last step.
    pub loss: f64,
}

/// The results of a model.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Number of parameters.
    pub parameters: usize,
    /// One row per stream.
    pub rows: Vec<StepRow>,
    /// Peak device memory of tensors and scratch in bytes; `None` on the CPU.
    pub peak_bytes: Option<usize>,
    /// Peak memory reserved by the pool in bytes.
    pub peak_reserved_bytes: Option<usize>,
    /// Number of host waits for the GPU in the last step; `None` on the CPU.
    pub host_waits: Option<u64>,
    /// Compiled and cached kernels; `None` on the CPU.
    pub kernels: Option<KernelReport>,
}

/// Kernels that were compiled or read from the cache.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KernelReport {
    /// Number of compiled modules.
    pub compiled: usize,
    /// Time in seconds.
    pub compile_seconds: f64,
    /// Number of modules read from the cache.
    pub cached: usize,
    /// Time in seconds.
    pub read_seconds: f64,
}

impl From<KernelTimes> for KernelReport {
    fn from(times: KernelTimes) -> Self {
        let KernelTimes { compiled, compile_seconds, cached, read_seconds } = times;
        Self { compiled, compile_seconds, cached, read_seconds }
    }
}

/// Samples of one stream.
#[derive(Default)]
struct Stream {
    name: &'static str,
    /// Times in milliseconds, including the warm-up.
    ms: Vec<f64>,
    tokens: usize,
    flops: f64,
    loss: f64,
}

/// Measures the training steps of a plan on random ids instead of its data, with one document per
/// row: forward, backward, clipping and the optimizer, run by [`Trainer`]. Streams are drawn as in
/// training, and each is measured separately.
///
/// # Errors
/// Errors of training: out of memory, a non-finite loss.
pub fn step(
    plan: TrainPlan,
    device: &Device,
    settings: StepSettings,
    observe: &mut dyn FnMut(&StepMetrics),
) -> Result<StepReport> {
    let parameters = parameter_count(plan.model()) as usize;
    let (share, method) = (plan.config().objective.full_ratio, plan.objective().attention.method);
    let expected = if method.is_aligned() && share > 0.0 && share < 1.0 { 2 } else { 1 };
    let rows = random_rows(&plan)?;
    let model = initial_model(&plan)?;
    let mut trainer = Trainer::new(plan, model, rows)?.to_device(device)?;
    let each = settings.warm_up + settings.steps;
    let mut streams: Vec<Stream> = Vec::new();
    let mut waits = None;
    while (trainer.done() < PATIENCE * expected * each)
        && (streams.len() < expected || streams.iter().any(|stream| stream.ms.len() < each))
    {
        let before = host_waits(device);
        let metrics = trainer.step()?;
        waits = host_waits(device).zip(before).map(|(after, before)| after - before);
        observe(&metrics);
        record(&mut streams, &metrics);
    }
    let (memory, kernels) = match device {
        Device::Cuda(gpu) => {
            let memory = gpu.memory_use().map_err(ssa_train::TrainError::from)?;
            (Some(memory), Some(gpu.kernel_times().into()))
        }
        _ => (None, None),
    };
    Ok(StepReport {
        parameters,
        rows: streams.into_iter().map(|stream| stream.summary(settings.warm_up)).collect(),
        peak_bytes: memory.map(|memory| memory.peak),
        peak_reserved_bytes: memory.map(|memory| memory.reserved_peak),
        host_waits: waits,
        kernels,
    })
}

fn host_waits(device: &Device) -> Option<u64> {
    match device {
        Device::Cuda(gpu) => Some(gpu.host_waits()),
        _ => None,
    }
}

fn record(streams: &mut Vec<Stream>, metrics: &StepMetrics) {
    let name = match metrics.full_stream_fraction {
        1.0 => "full",
        0.0 => "sparse",
        _ => "mixed",
    };
    let place = streams.iter().position(|stream| stream.name == name).unwrap_or_else(|| {
        streams.push(Stream { name, ..Stream::default() });
        streams.len() - 1
    });
    let stream = &mut streams[place];
    stream.ms.push(metrics.seconds * 1e3);
    stream.tokens = metrics.tokens;
    stream.flops = metrics.tflops * TERA * metrics.seconds;
    stream.loss = metrics.loss;
}

impl Stream {
    fn summary(mut self, warm_up: usize) -> StepRow {
        // At least one is left.
        let warm_up = warm_up.min(self.ms.len().saturating_sub(1));
        let measured = &mut self.ms[warm_up..];
        let ms = median(measured);
        StepRow {
            stream: self.name,
            steps: measured.len(),
            ms,
            fastest: measured.first().copied().unwrap_or(ms),
            tokens_per_second: self.tokens as f64 / (ms * 1e-3),
            tflops: self.flops / (ms * 1e-3) / TERA,
            loss: self.loss,
        }
    }
}

/// Rows of one document each: one long document, cut at row boundaries.
fn random_rows(plan: &TrainPlan) -> Result<PackedRows> {
    let sequence_length = plan.sequence_length();
    let rows = BATCHES * plan.batches().full;
    let eos = plan.tokenizer().eos();
    let ids =
        Random::new(plan.seed()).below(plan.model().vocab_size as u32, rows * sequence_length - 1);
    let options = PackOptions {
        sequence_length,
        packing: Packing::Concat,
        seed: plan.seed(),
        remainder: Remainder::Drop,
    };
    Ok(pack(&[ids], eos, &options)?)
}
