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
/// If the stream draw favors one side too much, the other one is measured with fewer steps.
const PATIENCE: usize = 4;

/// How many steps are measured.
#[derive(Clone, Copy, Debug)]
pub struct StepSettings {
    /// Steps of each stream that are run before.
    pub warm_up: usize,
    /// Steps of each stream that are measured.
    pub steps: usize,
}

/// The steps that ran on one stream.
#[derive(Clone, Debug, Serialize)]
pub struct StepRow {
    /// The attention that fed the next layer: `full`, `sparse`, or `mixed` where layers or
    /// micro-batches differ.
    pub stream: &'static str,
    /// Steps measured.
    pub steps: usize,
    /// Median time of a step, milliseconds.
    pub ms: f64,
    /// The fastest, milliseconds.
    pub fastest: f64,
    /// Tokens of a step over its median time.
    pub tokens_per_second: f64,
    /// The operations that the step needs by its formulas, as `ssa train` counts them, over its
    /// median time.
    pub tflops: f64,
    /// Loss of the last step.
    pub loss: f64,
}

/// What was measured of a model.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Weights.
    pub parameters: usize,
    /// One for each stream.
    pub rows: Vec<StepRow>,
    /// The most device memory in tensors and scratch, bytes; `None` on the CPU.
    pub peak_bytes: Option<usize>,
    /// The most that the pool held for them, bytes.
    pub peak_reserved_bytes: Option<usize>,
    /// How often the host waited for the GPU in the last step; `None` on the CPU.
    pub host_waits: Option<u64>,
    /// Kernels that were compiled or read from the cache; `None` on the CPU.
    pub kernels: Option<KernelReport>,
}

/// Kernels of a measurement that were compiled or read from the cache.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KernelReport {
    /// Modules that were compiled.
    pub compiled: usize,
    /// Seconds for that.
    pub compile_seconds: f64,
    /// Modules that were read from the cache.
    pub cached: usize,
    /// Seconds for that.
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
    /// Milliseconds, warm-up included.
    ms: Vec<f64>,
    tokens: usize,
    flops: f64,
    loss: f64,
}

/// Runs the training steps of a plan on random ids instead of its data, one document per row, and
/// measures them: forward, backward, clipping and the optimizer, as [`Trainer`] runs them. Streams
/// are drawn as in training, and each is measured separately.
///
/// # Errors
/// What training fails with: no place on the device, a loss that is not finite.
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

/// Rows of one document each: a long one is cut where a row ends.
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
