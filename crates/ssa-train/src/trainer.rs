//! The training loop.

use std::time::Instant;

use ssa_data::{Batch, Loader, PackedRows};
use ssa_kernels::Documents;
use ssa_model::{AttentionMode, Input, Method, Model, Parameters, StepLosses, StepScale, TrainBatch};

use crate::metrics::StepMetrics;
use crate::optimizer::Optimizer;
use crate::{Result, TrainError, TrainPlan};

#[cfg(test)]
mod tests;

/// Trains a model step by step.
///
/// It is an iterator over the steps of the plan, so that the caller decides what to show and when to stop:
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use ssa_train::{TrainConfig, TrainPlan, Trainer};
///
/// let plan = TrainPlan::new(TrainConfig::default())?;
/// let text = plan.text()?;
/// let rows = plan.training_rows(&text.train)?;
/// let model = plan.initial_model()?;
/// let mut trainer = Trainer::new(plan, model, rows)?;
/// for metrics in &mut trainer {
///     println!("{}", metrics?.loss);
/// }
/// let model = trainer.into_model();
/// # Ok(())
/// # }
/// ```
///
/// # Determinism
/// The same plan, model and rows give bitwise the same weights and losses, whatever the number of threads. Cutting
/// a step into micro-batches changes results by rounding only.
pub struct Trainer {
    plan: TrainPlan,
    model: Model,
    loader: Loader,
    optimizer: Optimizer,
    /// Buffer of the step's gradient.
    grads: Parameters,
    /// Steps done.
    done: usize,
    /// Set by an error: the iterator ends after it.
    failed: bool,
}

/// Sums over the micro-batches of a step.
#[derive(Default)]
struct StepTotals {
    cross_entropy: f64,
    alignment: f64,
    streams: usize,
    full_streams: usize,
}

impl Trainer {
    /// A trainer at its first step.
    ///
    /// # Errors
    /// [`TrainError::Data`] if the rows cannot be loaded in micro-batches of the plan.
    pub fn new(plan: TrainPlan, model: Model, rows: PackedRows) -> Result<Self> {
        let loader = Loader::new(rows, plan.micro_batch_size(), plan.seed())?;
        let optimizer = Optimizer::new(*plan.optimizer(), model.config());
        let grads = Parameters::zeros(model.config());
        Ok(Self { plan, model, loader, optimizer, grads, done: 0, failed: false })
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

    /// Runs one optimiser step.
    ///
    /// All micro-batches are fetched before the first is run: the denominators of the means are those of the whole
    /// step, so rows with few targets weigh the same whichever micro-batch they fall into.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] if a loss or the gradient is not a number any more; weights and moments then stay as
    /// they were.
    pub fn step(&mut self) -> Result<StepMetrics> {
        let start = Instant::now();
        let batches = self.micro_batches();
        let scale = step_scale(&batches);
        let totals = self.accumulate(batches, &scale)?;
        let alpha = self.alpha();
        let loss = totals.cross_entropy + alpha * totals.alignment;
        let norm = Optimizer::norm(&self.grads);
        self.check_finite("the cross-entropy", totals.cross_entropy)?;
        self.check_finite("the alignment loss", totals.alignment)?;
        self.check_finite("the gradient norm", norm)?;

        let learning_rate = self.plan.schedule().learning_rate(self.done);
        self.optimizer.step(self.model.parameters_mut(), &self.grads, norm, learning_rate)?;
        self.done += 1;
        let seconds = start.elapsed().as_secs_f64();
        Ok(StepMetrics {
            step: self.done,
            loss,
            cross_entropy: totals.cross_entropy,
            alignment: totals.alignment,
            effective_alpha: alpha,
            learning_rate,
            grad_norm: norm,
            full_streams: totals.full_streams as f64 / totals.streams as f64,
            tokens: scale.valid_tokens,
            seconds,
            tokens_per_second: scale.valid_tokens as f64 / seconds,
            epoch: (self.done * self.plan.batch_size()) as f64 / self.loader.rows().rows().len() as f64,
        })
    }

    fn micro_batches(&self) -> Vec<Batch> {
        let count = self.plan.accumulation() as u64;
        let first = self.done as u64 * count;
        (first..first + count).map(|index| self.loader.batch(index)).collect()
    }

    /// Fills the gradient buffer with the gradient of the step.
    fn accumulate(&mut self, batches: Vec<Batch>, scale: &StepScale) -> Result<StepTotals> {
        self.grads.fill_zero();
        let layers = self.model.config().num_hidden_layers;
        let mut totals = StepTotals::default();
        for (index, batch) in batches.into_iter().enumerate() {
            let streams = self.plan.streams().streams(self.done as u64, index as u64, layers);
            let batch = train_batch(batch)?;
            let objective = self.plan.objective();
            let losses = self.model.train_step(&batch, objective, &streams, scale, &mut self.grads)?;
            totals.add(&losses, &streams);
        }
        Ok(totals)
    }

    /// The weight of the alignment loss, 0 for methods that have none.
    fn alpha(&self) -> f64 {
        let objective = self.plan.objective();
        if objective.attention.method == Method::Ssa { f64::from(objective.alpha) } else { 0.0 }
    }

    fn check_finite(&self, what: &'static str, value: f64) -> Result<()> {
        if value.is_finite() {
            Ok(())
        } else {
            Err(TrainError::NotFinite { step: self.done + 1, what, value })
        }
    }
}

/// Runs the steps that are left; an error is the last item.
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

impl StepTotals {
    fn add(&mut self, losses: &StepLosses, streams: &[AttentionMode]) {
        self.cross_entropy += losses.cross_entropy;
        self.alignment += losses.alignment;
        self.streams += streams.len();
        self.full_streams += streams.iter().filter(|&&stream| stream == AttentionMode::Full).count();
    }
}

/// The denominators of the means over all micro-batches of a step.
fn step_scale(batches: &[Batch]) -> StepScale {
    StepScale {
        target_tokens: batches.iter().map(Batch::target_tokens).sum(),
        valid_tokens: batches.iter().map(Batch::valid_tokens).sum(),
    }
}

fn train_batch(batch: Batch) -> Result<TrainBatch> {
    let documents = Documents::from_cu_seqlens(batch.cu_seqlens)?;
    let input = Input::new(batch.ids, batch.batch, batch.tokens, documents)?;
    Ok(TrainBatch::new(input, batch.labels, Some(batch.valid))?)
}
