//! Checks whether a run may be resumed with a configuration.

use std::path::Path;

use ssa_files::Sha256;

use super::RunDir;
use crate::checkpoint::Checkpoint;
use crate::config::{Difference, TrainConfig};
use crate::journal::{Journal, RunEvent, read_journal};
use crate::{Result, TrainError};

/// Where a run resumes: in training, or at the evaluation.
#[derive(Clone, Debug)]
pub struct ResumePoint {
    /// The newest checkpoint; `None` if the run stopped before its first.
    pub checkpoint: Option<Checkpoint>,
}

impl RunDir {
    /// Resumes the run with a configuration, which becomes the configuration of the run. Returns
    /// `None` for a finished run, unless the configuration changes: then the run is resumed, and
    /// its summary and report are removed.
    ///
    /// # Errors
    /// Same as [`continue_with`](Self::continue_with) and [`Checkpoints::newest`];
    /// [`TrainError::NoRun`] for a finished run without checkpoints.
    ///
    /// [`Checkpoints::newest`]: crate::Checkpoints::newest
    pub fn resume(&self, config: &TrainConfig, allowed: &[String]) -> Result<Option<ResumePoint>> {
        let checkpoint = self.checkpoints().newest()?;
        if self.is_finished() {
            if self.config()? == *config {
                return Ok(None);
            }
            refuse(&self.config_path(), &config.differences(&self.config()?), allowed)?;
            if checkpoint.is_none() {
                let reason = "it is finished and has no checkpoints";
                return Err(TrainError::NoRun { path: self.path.clone(), reason });
            }
        }
        self.continue_with(config, checkpoint.as_ref(), allowed)?;
        self.reopen()?;
        Ok(Some(ResumePoint { checkpoint }))
    }

    /// Makes `config` the configuration of the run, unless it differs in a key that is not in
    /// `allowed`.
    ///
    /// It is compared with the configuration of the run, and with that of the checkpoint unless the
    /// journal contains it. This detects a checkpoint from a different run.
    ///
    /// # Errors
    /// [`TrainError::ConfigChanged`] lists the keys; [`TrainError::File`].
    pub fn continue_with(
        &self,
        config: &TrainConfig,
        checkpoint: Option<&Checkpoint>,
        allowed: &[String],
    ) -> Result<()> {
        let current = self.config()?;
        let changed = config.differences(&current);
        refuse(&self.config_path(), &changed, allowed)?;
        let mut from = Sha256::of(current.to_toml()).to_string();
        let mut differences = changed.clone();
        if let Some(checkpoint) = checkpoint {
            from.clone_from(&checkpoint.state().config_sha256);
            if !self.had_config(&from)? {
                differences = config.differences(checkpoint.config());
                refuse(checkpoint.path(), &differences, allowed)?;
            }
        }
        if !differences.is_empty() {
            // Write the journal before the new configuration, which makes the checkpoint's
            // configuration outdated.
            let keys = differences.iter().map(Difference::to_string).collect();
            Journal::open(&self.path)?.write(RunEvent::Changed { from, keys })?;
        }
        if changed.is_empty() { Ok(()) } else { self.write_config(config) }
    }

    /// Whether the journal records a resume from a checkpoint with this configuration.
    fn had_config(&self, sha256: &str) -> Result<bool> {
        let is_it = |event| matches!(event, RunEvent::Changed { from, .. } if from == sha256);
        Ok(read_journal(&self.path)?.into_iter().any(|entry| is_it(entry.event)))
    }
}

fn refuse(place: &Path, differences: &[Difference], allowed: &[String]) -> Result<()> {
    let refused: Vec<Difference> = differences
        .iter()
        .filter(|difference| !allowed.contains(&difference.key))
        .cloned()
        .collect();
    if refused.is_empty() {
        Ok(())
    } else {
        Err(TrainError::ConfigChanged { place: place.to_owned(), differences: refused })
    }
}
