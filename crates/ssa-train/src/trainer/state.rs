//! Saving and restoring the state of a trainer.

use ssa_data::{Mixture, RowId};
use ssa_files::Sha256;
use ssa_kernels::{DType, Device};
use ssa_model::{Model, Parameters};

use super::Trainer;
use crate::checkpoint::{BadSteps, Checkpoint, Restored, RunState, Snapshot};
use crate::optimizer::Optimizer;
use crate::{Result, TrainPlan};

impl Trainer {
    /// Creates a trainer that continues from a checkpoint.
    ///
    /// # Errors
    /// [`TrainError::Model`](crate::TrainError::Model) names the file and the tensor that does not
    /// match the plan; otherwise the same as [`Trainer::new`].
    pub fn resume(
        plan: TrainPlan,
        checkpoint: &Checkpoint,
        rows: impl Into<Mixture>,
    ) -> Result<Self> {
        let Restored { parameters, m, v } = checkpoint.restore(&plan)?;
        let state = checkpoint.state();
        let model = Model::new(plan.model().clone(), parameters)?;
        let mut trainer = Self::new(plan, model, rows)?;
        trainer.optimizer =
            Optimizer::restored(*trainer.plan.optimizer(), m, v, state.optimizer_steps);
        trainer.done = state.step;
        // The state counts rows, not batches, so that a run can continue with a different batch
        // size.
        trainer.cursor = state.rows_read.div_ceil(trainer.plan.batches().micro_batch_size as u64);
        trainer.bad_steps = state.bad_steps;
        Ok(trainer)
    }

    /// Skips the rows of a failed step, which is then retried on the next ones.
    pub fn skip_rows(&mut self) {
        self.cursor = self.indices().end;
        self.bad_steps.skipped += 1;
        self.bad_steps.in_row += 1;
    }

    /// Counts of non-finite steps.
    pub fn bad_steps(&self) -> BadSteps {
        self.bad_steps
    }

    /// The sources of the rows of the next step.
    pub fn next_rows(&self) -> Vec<RowId> {
        self.indices().flat_map(|index| self.batches.loader().row_ids(index)).collect()
    }

    /// Rolls weights, moments and step back to a checkpoint. Rows already read are not read again,
    /// because they include the rows of the bad steps.
    pub(crate) fn roll_back(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let Restored { parameters, m, v } = checkpoint.restore(&self.plan)?;
        let state = checkpoint.state();
        let device = self.model.device();
        self.optimizer = Optimizer::restored(*self.plan.optimizer(), m, v, state.optimizer_steps);
        *self.model.parameters_mut() = parameters;
        self.done = state.step;
        self.bad_steps.in_row = 0;
        self.bad_steps.rollbacks += 1;
        self.share_state()?;
        self.move_to(&device)
    }

    /// Copies everything that a checkpoint holds to host memory; the same for all devices.
    ///
    /// # Errors
    /// [`TrainError::Kernel`](crate::TrainError::Kernel) if the device fails;
    /// [`TrainError::Ranks`](crate::TrainError::Ranks) if a rank is lost.
    pub(crate) fn snapshot(&mut self) -> Result<Snapshot> {
        let (m, v) = match self.collect_moments()? {
            Some(collected) => collected,
            None => {
                let copy = |moments: &Parameters| moments.to_device(&Device::Cpu, DType::F32);
                let (m, v) = self.optimizer.moments();
                (copy(m)?, copy(v)?)
            }
        };
        Ok(Snapshot {
            plan: self.plan.clone(),
            parameters: self.collect_masters()?,
            m,
            v,
            state: RunState {
                format: RunState::FORMAT,
                program: env!("CARGO_PKG_VERSION").to_owned(),
                config_sha256: Sha256::of(self.plan.config().to_toml()).to_string(),
                text_sha256: self.text_sha256.clone(),
                held_out_sha256: None,
                step: self.done,
                optimizer_steps: self.optimizer.steps(),
                rows_read: self.rows_read(),
                bad_steps: self.bad_steps,
            },
        })
    }
}
