//! The training loop.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ssa_data::{Batch, Loader, Mixture, Prefetch};
use ssa_kernels::{DType, Device, Documents};
use ssa_model::{Input, LossDenominators, Model, Objective, Parameters, StepLosses, TrainBatch};

use crate::checkpoint::BadSteps;
use crate::fingerprint::fingerprint;
use crate::flops::StepFlops;
use crate::metrics::StepMetrics;
use crate::optimizer::Optimizer;
use crate::{Result, TrainError, TrainPlan};
use exchange::Exchange;
use group_sum::GroupSum;
use pace::Pace;
use update::Updated;

pub(crate) use exchange::BUCKET;

mod bad_value;
mod exchange;
mod group_sum;
mod pace;
mod ranks;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod update;

/// Steps whose batches are prefetched. One is enough unless the disk stalls.
pub(crate) const STEPS_AHEAD: usize = 2;

const TERA: f64 = 1e12;

// The data's "no target" label must be the label that the loss ignores.
const _: () = assert!(
    ssa_data::IGNORE_INDEX == ssa_kernels::ops::cross_entropy::IGNORE_INDEX,
    "data and kernels use the same label for \"no target\""
);

/// Trains a model step by step.
///
/// It is an iterator over the steps of the plan, so the caller decides what to show and when to
/// stop:
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use ssa_train::{TrainConfig, TrainPlan, Trainer, initial_model};
///
/// let plan = TrainPlan::new(TrainConfig::default())?;
/// let data = plan.open_data()?;
/// let model = initial_model(&plan)?;
/// let mut trainer = Trainer::new(plan, model, data.train)?;
/// for metrics in &mut trainer {
///     println!("{}", metrics?.loss);
/// }
/// let model = trainer.into_model();
/// # Ok(())
/// # }
/// ```
///
/// # Determinism
/// The same plan, model and rows give the same weights and losses, bit for bit, for any number of
/// threads, and for any number of ranks that divides `training.groups`. Splitting a step into
/// micro-batches or groups changes results by rounding only.
pub struct Trainer {
    pub(crate) plan: TrainPlan,
    pub(crate) model: Model,
    pub(crate) batches: Prefetch,
    optimizer: Optimizer,
    flops: StepFlops,
    /// Gradients of the step.
    pub(crate) grads: GroupSum,
    /// The processes that train together.
    exchange: Exchange,
    /// Whether all ranks use the same algorithms of matrix products.
    shares_algorithms: bool,
    /// How long the ranks compute.
    pace: Pace,
    /// Steps done.
    pub(crate) done: usize,
    /// Micro-batches read, including those of skipped steps.
    pub(crate) cursor: u64,
    bad_steps: BadSteps,
    text_sha256: String,
    /// Set by the caller to abandon the current step.
    stop: Arc<AtomicBool>,
    /// Set after an error: the iterator ends.
    failed: bool,
}

impl Trainer {
    /// Creates a trainer at its first step, on rows of one corpus or a mixture of several.
    ///
    /// # Errors
    /// [`TrainError::Data`] if the rows cannot be loaded in the plan's micro-batches.
    pub fn new(plan: TrainPlan, model: Model, rows: impl Into<Mixture>) -> Result<Self> {
        let rows = rows.into();
        let text_sha256 = fingerprint(&rows)?;
        let micro_batch_size = plan.batches().micro_batch_size;
        let loader = Loader::new(rows, micro_batch_size, plan.seed())?;
        let batches = Prefetch::new(loader, plan.batches().full / micro_batch_size * STEPS_AHEAD)?;
        let optimizer = Optimizer::new(*plan.optimizer(), model.config(), plan.trainable())?;
        let grads = group_sum(&plan, plan.batches().groups, &Device::Cpu)?;
        let bad_steps = BadSteps::default();
        let flops = StepFlops::new(&plan);
        Ok(Self {
            plan,
            model,
            batches,
            optimizer,
            flops,
            grads,
            exchange: Exchange::default(),
            shares_algorithms: false,
            pace: Pace::default(),
            done: 0,
            cursor: 0,
            bad_steps,
            text_sha256,
            stop: Arc::default(),
            failed: false,
        })
    }

    /// Moves everything to a device, where the steps then run.
    ///
    /// # Errors
    /// [`TrainError::Kernel`] if the device is out of memory.
    pub fn to_device(mut self, device: &Device) -> Result<Self> {
        if let Device::Cuda(gpu) = device
            && !self.exchange.ranks.is_alone()
        {
            self.connect_gpus(gpu)?;
        }
        self.move_to(device)?;
        Ok(self)
    }

    fn move_to(&mut self, device: &Device) -> Result<()> {
        if self.model.device() == *device {
            return Ok(());
        }
        let weights = match self.model.device() {
            // These are the master weights.
            Device::Cpu => self.optimizer.move_to(self.model.parameters(), device)?,
            _ => {
                let masters = self.optimizer.masters(self.model.parameters())?;
                self.optimizer.move_to(&masters, device)?
            }
        };
        *self.model.parameters_mut() = weights;
        self.grads = group_sum(&self.plan, self.local_groups(), device)?;
        Ok(())
    }

    /// Returns the model with `f32` weights on the CPU, as it is saved. On a GPU
    /// [`model`](Self::model) has rounded weights.
    ///
    /// # Errors
    /// [`TrainError::Kernel`] if the device fails.
    pub fn master_model(&mut self) -> Result<Model> {
        let masters = self.collect_masters()?;
        Ok(Model::new(self.model.config().clone(), masters)?)
    }

    /// The plan.
    pub fn plan(&self) -> &TrainPlan {
        &self.plan
    }

    /// The model as trained so far.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model as trained so far.
    pub fn into_model(self) -> Model {
        self.model
    }

    /// Steps done.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Abandons the current step once `flag` is set, between two micro-batches. Among ranks the
    /// step is completed, and the flag of any rank sets that of all.
    pub fn stop_on(&mut self, flag: Arc<AtomicBool>) {
        self.stop = flag;
    }

    /// Runs one optimizer step.
    ///
    /// All micro-batches are fetched before the first one runs: the denominators of the means cover
    /// the whole step, so the weight of a row does not depend on its micro-batch.
    ///
    /// On a GPU everything up to the weight update is queued without waiting. The device decides
    /// from the losses and the norm whether the update applies; the host reads them once, while the
    /// update runs.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] if a loss or the gradient is not finite; weights and moments then
    /// stay as they were, and the same step fails again unless its rows are skipped
    /// ([`skip_rows`](Self::skip_rows)). [`TrainError::Stopped`] if it was abandoned, which also
    /// changes nothing.
    pub fn step(&mut self) -> Result<StepMetrics> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(TrainError::Stopped);
        }
        self.announce_step()?;
        self.step_as_told()
    }

    /// Runs one optimizer step, as all ranks do now.
    fn step_as_told(&mut self) -> Result<StepMetrics> {
        let start = Instant::now();
        self.exchange.ranks.begin_step(self.done + 1);
        let batches = self.micro_batches()?;
        let denominators = denominators(&batches);
        let flops = self.flops.of(&batches);
        let losses = self.accumulate(batches, denominators)?;
        let times = self.exchange.meet(start)?;
        let learning_rate = self.plan.schedule().learning_rate(self.done);
        let Updated { losses, norm, times, parts } = self.update(losses, times, learning_rate)?;

        let alpha = self.alpha();
        let z_loss = f64::from(self.plan.objective().z_loss) * losses.z_loss;
        let loss = losses.cross_entropy + alpha * losses.alignment + z_loss;
        // A mean is finite exactly if its sum is, which the device has checked.
        self.check_finite("the cross-entropy", losses.cross_entropy)?;
        self.check_finite("the alignment loss", losses.alignment)?;
        self.check_finite("the z-loss", z_loss)?;
        self.check_finite("the gradient norm", norm)?;

        self.optimizer.confirm_step();
        let full_stream_fraction = self.plan.full_stream_fraction(self.done..self.done + 1);
        self.cursor = self.indices().end;
        self.done += 1;
        self.bad_steps.in_row = 0;
        let (corpus_epochs, epoch) = self.epochs();
        let rank_seconds: Vec<f64> = times.iter().map(|times| times.computed).collect();
        let slow_ranks = self.pace.add(&rank_seconds);
        let seconds = positive_seconds(start.elapsed());
        let tflops = flops / seconds / TERA;
        let devices = self.exchange.ranks.size() as f64;
        Ok(StepMetrics {
            step: self.done,
            loss,
            cross_entropy: losses.cross_entropy,
            alignment: losses.alignment,
            alignment_per_layer: losses.alignment_per_layer,
            z_loss: losses.z_loss,
            effective_alpha: alpha,
            learning_rate,
            grad_norm: norm,
            full_stream_fraction,
            skipped_steps: self.bad_steps.skipped,
            tokens: denominators.valid_tokens,
            seconds,
            rank_seconds,
            rank_wait_seconds: times.iter().map(|times| times.waited).collect(),
            slow_ranks,
            reduce_seconds: parts[0],
            update_seconds: parts[1],
            tokens_per_second: denominators.valid_tokens as f64 / seconds,
            tflops,
            mfu: self.plan.config().monitoring.peak_tflops.map(|peak| tflops / (peak * devices)),
            epoch,
            corpus_epochs,
        })
    }

    fn micro_batches(&mut self) -> Result<Vec<Batch>> {
        Ok(self.indices().map(|index| self.batches.batch(index)).collect::<Result<_, _>>()?)
    }

    /// Micro-batches of the next step.
    pub(crate) fn indices(&self) -> Range<u64> {
        self.cursor..self.cursor + self.plan.batches().micro_batches(self.done) as u64
    }

    /// Rows read so far, including those of skipped steps.
    fn rows_read(&self) -> u64 {
        self.cursor * self.plan.batches().micro_batch_size as u64
    }

    /// Passes over each corpus, and over all rows together.
    fn epochs(&self) -> (Vec<f64>, f64) {
        let (mixture, drawn) = (self.batches.loader().mixture(), self.rows_read());
        (mixture.epochs(drawn), drawn as f64 / mixture.rows() as f64)
    }

    /// Accumulates the gradient of this rank's part of the step; returns its losses.
    fn accumulate(
        &mut self,
        batches: Vec<Batch>,
        denominators: LossDenominators,
    ) -> Result<StepLosses> {
        self.grads.clear();
        let layers = self.model.config().num_hidden_layers;
        let objective = Objective { alpha: self.alpha() as f32, ..self.plan.objective().clone() };
        let mut losses = self.model.step_losses(&objective, denominators);
        let group_size = batches.len() / self.plan.batches().groups;
        let local = self.local_groups() * group_size;
        let first = self.exchange.ranks.rank() * local;
        let mut micro_batches = batches.into_iter().enumerate().skip(first).take(local).peekable();
        while micro_batches.peek().is_some() {
            let grads = self.grads.next();
            for (index, batch) in micro_batches.by_ref().take(group_size) {
                if self.exchange.ranks.is_alone() && self.stop.load(Ordering::Relaxed) {
                    return Err(TrainError::Stopped);
                }
                let streams = self.plan.streams().streams(self.done as u64, index as u64, layers);
                let batch = train_batch(batch)?;
                self.model.train_step(&batch, &objective, &streams, &mut losses, grads)?;
            }
            self.grads.add()?;
        }
        Ok(losses)
    }

    /// The weight of the alignment loss in the next step; 0 for methods without one.
    fn alpha(&self) -> f64 {
        let aligned = self.plan.objective().attention.method.is_aligned();
        if aligned { f64::from(self.plan.alpha(self.done)) } else { 0.0 }
    }

    fn check_finite(&self, what: &'static str, value: f64) -> Result<()> {
        if value.is_finite() {
            Ok(())
        } else {
            Err(TrainError::NotFinite { step: self.done + 1, what, value })
        }
    }
}

/// Runs the remaining steps; an error is the last item.
impl Iterator for Trainer {
    type Item = Result<StepMetrics>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.done >= self.plan.steps() {
            return None;
        }
        let result = self.step();
        self.failed = result.is_err();
        Some(result)
    }
}

/// The duration of a step, at least a nanosecond because rates divide by it.
fn positive_seconds(elapsed: Duration) -> f64 {
    elapsed.max(Duration::from_nanos(1)).as_secs_f64()
}

/// Gradients of the parameters that the plan trains.
fn group_sum(plan: &TrainPlan, groups: usize, device: &Device) -> Result<GroupSum> {
    let is_kept = |name: &str| plan.trainable().contains(name);
    let zeros = || Parameters::zeros_for(plan.model(), device, DType::F32, is_kept);
    Ok(GroupSum::new(groups, zeros)?)
}

/// The denominators of the means over all micro-batches of a step.
fn denominators(batches: &[Batch]) -> LossDenominators {
    LossDenominators {
        target_tokens: batches.iter().map(Batch::target_tokens).sum(),
        valid_tokens: batches.iter().map(Batch::valid_tokens).sum(),
    }
}

fn train_batch(batch: Batch) -> Result<TrainBatch> {
    let documents = Documents::from_cu_seqlens(batch.cu_seqlens)?;
    let input = Input::new(batch.ids, batch.batch, batch.tokens, documents)?;
    Ok(TrainBatch::new(input, batch.labels, Some(batch.valid))?)
}
