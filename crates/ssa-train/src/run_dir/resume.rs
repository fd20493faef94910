//! Checks whether a run may be resumed with a configuration.

use std::path::Path;

use ssa_files::Sha256;

use super::{CONFIG, RunDir};
use crate::checkpoint::{Checkpoint, Checkpoints};
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
    /// Same as [`check_resume`](Self::check_resume); [`TrainError::File`].
    pub fn resume(&self, config: &TrainConfig, allowed: &[String]) -> Result<Option<ResumePoint>> {
        let Some((point, changes)) = resumable(&self.path, config, allowed)? else {
            return Ok(None);
        };
        self.apply(changes, config)?;
        self.reopen()?;
        Ok(Some(point))
    }

    /// Whether and where [`resume`](Self::resume) would resume the run in a directory. Takes no
    /// lock and changes nothing.
    ///
    /// # Errors
    /// Same as [`continue_with`](Self::continue_with) and [`Checkpoints::newest`];
    /// [`TrainError::NoRun`] without a run, or for a finished run without checkpoints.
    ///
    /// [`Checkpoints::newest`]: crate::Checkpoints::newest
    pub fn check_resume(
        path: &Path,
        config: &TrainConfig,
        allowed: &[String],
    ) -> Result<Option<ResumePoint>> {
        Ok(resumable(path, config, allowed)?.map(|(point, _)| point))
    }

    /// Makes `config` the configuration of the run, unless it differs in a key that is not in
    /// `allowed`.
    ///
    /// It is compared with the configuration of the run, and with that of the checkpoint unless the
    /// journal contains it. This detects a checkpoint from a different run.
    ///
    /// # Errors
    /// [`TrainError::ConfigChanged`] lists the keys; [`TrainError::FewerSteps`];
    /// [`TrainError::File`].
    pub fn continue_with(
        &self,
        config: &TrainConfig,
        checkpoint: Option<&Checkpoint>,
        allowed: &[String],
    ) -> Result<()> {
        let changes = Changes::find(&self.path, &self.config()?, config, checkpoint, allowed)?;
        self.apply(changes, config)
    }

    fn apply(&self, changes: Changes, config: &TrainConfig) -> Result<()> {
        let Changes { from, differences, of_run } = changes;
        if !differences.is_empty() {
            // Write the journal before the new configuration, which makes the checkpoint's
            // configuration outdated.
            let keys = differences.iter().map(Difference::to_string).collect();
            Journal::open(&self.path)?.write(RunEvent::Changed { from, keys })?;
        }
        if of_run { self.write_config(config) } else { Ok(()) }
    }
}

/// Where the run in a directory is resumed, and what changes; `None` if it is finished and nothing
/// changes.
fn resumable(
    path: &Path,
    config: &TrainConfig,
    allowed: &[String],
) -> Result<Option<(ResumePoint, Changes)>> {
    let current = TrainConfig::load(&RunDir::config_path_of(path)?, &[])?;
    let checkpoint = Checkpoints::of_run(path).newest()?;
    let is_finished = RunDir::summary_of(path).exists();
    if is_finished && current == *config {
        return Ok(None);
    }
    let changes = Changes::find(path, &current, config, checkpoint.as_ref(), allowed)?;
    if is_finished && checkpoint.is_none() {
        let reason = "it is finished and has no checkpoints";
        return Err(TrainError::NoRun { path: path.to_owned(), reason });
    }
    Ok(Some((ResumePoint { checkpoint }, changes)))
}

/// What changes in the configuration when a run is resumed.
struct Changes {
    /// SHA-256 of the configuration before.
    from: String,
    differences: Vec<Difference>,
    /// Whether the configuration of the run changes, not only that of the checkpoint.
    of_run: bool,
}

impl Changes {
    /// The changes from the current configuration of the run to `config`, all of them allowed.
    fn find(
        path: &Path,
        current: &TrainConfig,
        config: &TrainConfig,
        checkpoint: Option<&Checkpoint>,
        allowed: &[String],
    ) -> Result<Self> {
        let mut differences = config.differences(current);
        refuse(&path.join(CONFIG), &differences, allowed)?;
        let mut from = Sha256::of(current.to_toml()).to_string();
        let of_run = !differences.is_empty();
        if let Some(checkpoint) = checkpoint {
            from.clone_from(&checkpoint.state().config_sha256);
            if !had_config(path, &from)? {
                differences = config.differences(checkpoint.config());
                refuse(checkpoint.path(), &differences, allowed)?;
            }
            let (steps, done) = (config.training.steps, checkpoint.state().step);
            if steps < done {
                return Err(TrainError::FewerSteps { path: path.to_owned(), steps, done });
            }
        }
        Ok(Self { from, differences, of_run })
    }
}

/// Whether the journal of a run records a resume from a checkpoint with this configuration.
fn had_config(path: &Path, sha256: &str) -> Result<bool> {
    let is_it = |event| matches!(event, RunEvent::Changed { from, .. } if from == sha256);
    Ok(read_journal(path)?.into_iter().any(|entry| is_it(entry.event)))
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
