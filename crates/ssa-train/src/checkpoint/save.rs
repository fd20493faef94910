//! Writing checkpoints atomically.

use std::path::Path;

use ssa_kernels::Tensor;
use ssa_model::Parameters;
use ssa_model::checkpoint::write_tensors;

use super::{Checkpoints, LATEST, OPTIMIZER, RUN_CONFIG, RunState, STATE, partial, sums};
use crate::Result;
use crate::lock::RunLock;
use crate::plan::TrainPlan;

/// A copy of everything in a checkpoint, taken between two steps.
pub(crate) struct Snapshot {
    pub(crate) plan: TrainPlan,
    pub(crate) parameters: Parameters,
    pub(crate) m: Parameters,
    pub(crate) v: Parameters,
    pub(crate) state: RunState,
}

/// Which checkpoints to keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// Number of newest checkpoints.
    pub(crate) last: usize,
    /// Checkpoints at multiples of this step; 0 for none.
    pub(crate) every: usize,
}

#[cfg(test)]
impl Snapshot {
    /// Writes the files of a checkpoint to a directory.
    pub(crate) fn write_to(&self, directory: &Path) {
        write_files(directory, self).unwrap();
    }
}

impl Checkpoints {
    /// Saves a checkpoint, points `latest` to it and removes old checkpoints. If the process dies
    /// at any operation, the newest checkpoint is complete.
    ///
    /// # Errors
    /// [`TrainError`](crate::TrainError) names the file; the previous checkpoints are then
    /// unchanged.
    pub(super) fn save(
        &self,
        snapshot: &Snapshot,
        retention: Retention,
        lock: &RunLock,
    ) -> Result<()> {
        let path = self.path(snapshot.state.step);
        let temporary = partial(&path);
        lock.check()?;
        let written = self.begin(&temporary).and_then(|()| write_files(&temporary, snapshot));
        if let Err(error) = written {
            // Free the space for the next attempt. The first error is the one to report.
            let _ = ssa_files::remove_tree(&temporary);
            return Err(error);
        }
        // Check the lock again: writing takes time.
        lock.check()?;
        ssa_files::rename(&temporary, &path)?;
        self.point_latest(snapshot.state.step)?;
        self.remove_old(retention)
    }

    /// Completes a save interrupted between the rename of the new checkpoint and the removal of old
    /// ones.
    pub(crate) fn tidy(&self, retention: Retention) -> Result<()> {
        match self.steps()?.last() {
            None => Ok(()),
            Some(&newest) => self.point_latest(newest).and_then(|()| self.remove_old(retention)),
        }
    }

    /// Creates an empty directory. Does not create the run directory: if that is missing, it was
    /// removed on purpose.
    fn begin(&self, temporary: &Path) -> Result<()> {
        if !self.directory.exists() {
            ssa_files::create_directory(&self.directory)?;
        }
        ssa_files::remove_tree(temporary)?;
        Ok(ssa_files::create_directory(temporary)?)
    }

    fn point_latest(&self, step: usize) -> Result<()> {
        let latest = self.directory.join(LATEST);
        // In a copied run the link may have become a copy of the checkpoint.
        if latest.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            ssa_files::remove_tree(&latest)?;
        }
        Ok(ssa_files::replace_link(&format!("step-{step}"), &latest)?)
    }

    fn remove_old(&self, retention: Retention) -> Result<()> {
        let steps = self.steps()?;
        let old = &steps[..steps.len().saturating_sub(retention.last)];
        let is_kept = |step: usize| retention.every > 0 && step.is_multiple_of(retention.every);
        for step in old.iter().filter(|step| !is_kept(**step)) {
            let path = self.path(*step);
            let aside = partial(&path);
            // Rename it first: a half-removed directory must not look like a checkpoint.
            ssa_files::rename(&path, &aside)?;
            ssa_files::remove_tree(&aside)?;
        }
        Ok(())
    }
}

/// Writes all files of a checkpoint into a directory.
fn write_files(directory: &Path, snapshot: &Snapshot) -> Result<()> {
    ssa_model::checkpoint::save(directory, snapshot.plan.model(), &snapshot.parameters)?;
    let tokenizer = snapshot.plan.tokenizer().copy_to(directory)?;
    let moments: Vec<(String, &Tensor)> =
        moments("m", &snapshot.m).chain(moments("v", &snapshot.v)).collect();
    write_tensors(&directory.join(OPTIMIZER), &moments, &[])?;
    ssa_files::write(&directory.join(RUN_CONFIG), snapshot.plan.config().to_toml())?;
    ssa_files::write_json(&directory.join(STATE), &snapshot.state)?;
    let run = [OPTIMIZER, RUN_CONFIG, STATE];
    let model = ssa_model::checkpoint::files(snapshot.plan.model());
    sums::write(directory, &[model, &run, &tokenizer].concat())
}

/// The moments of the parameters that are trained.
fn moments<'a>(
    which: &'a str,
    moments: &'a Parameters,
) -> impl Iterator<Item = (String, &'a Tensor)> {
    let kept = moments.named().into_iter().filter(|(_, tensor)| !tensor.is_empty());
    kept.map(move |(name, tensor)| (format!("{which}.{name}"), tensor))
}
