//! Writing a checkpoint so that it is whole or not there.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use ssa_kernels::Tensor;
use ssa_model::Parameters;
use ssa_model::checkpoint::{replace_file, write_tensors};

use super::{
    Checkpoints, FILES, LATEST, OPTIMIZER, RUN_CONFIG, RunState, STATE, partial, remove, sums,
};
use crate::durable::{copy_tokenizer, sync_names};
use crate::{Result, TrainError, TrainPlan};

/// A copy of all that a checkpoint holds, taken between two steps.
pub(crate) struct Snapshot {
    pub(crate) plan: TrainPlan,
    pub(crate) parameters: Parameters,
    pub(crate) m: Parameters,
    pub(crate) v: Parameters,
    pub(crate) state: RunState,
}

/// Which checkpoints stay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// So many of the newest.
    pub(crate) last: usize,
    /// Those of steps that this number divides; 0 for none.
    pub(crate) every: usize,
}

/// What has just been done while a checkpoint is saved, in this order. Whatever the last of them is
/// when a program dies, a whole checkpoint is the newest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveStep {
    /// The directory exists under a temporary name.
    Begun,
    /// The model is written.
    ModelWritten,
    /// The moments are written.
    OptimizerWritten,
    /// The configuration is written.
    ConfigWritten,
    /// The state is written.
    StateWritten,
    /// The checksums are written.
    SumsWritten,
    /// The directory has its name.
    Renamed,
    /// `latest` points to it.
    LatestMoved,
    /// A checkpoint that need not be kept has lost its name.
    OldSetAside,
    /// Its files are removed.
    OldRemoved,
}

impl SaveStep {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Begun,
        Self::ModelWritten,
        Self::OptimizerWritten,
        Self::ConfigWritten,
        Self::StateWritten,
        Self::SumsWritten,
        Self::Renamed,
        Self::LatestMoved,
        Self::OldSetAside,
        Self::OldRemoved,
    ];
}

impl Checkpoints {
    /// Saves a checkpoint, points `latest` to it and removes those that need not be kept.
    ///
    /// # Errors
    /// [`TrainError::Io`] or [`TrainError::Model`] names the file; then the checkpoints are those
    /// of before.
    pub(super) fn save(
        &self,
        snapshot: &Snapshot,
        keep: Keep,
        observe: &dyn Fn(SaveStep),
    ) -> Result<()> {
        let path = self.path(snapshot.state.step);
        let temporary = partial(&path);
        remove(&temporary)?;
        if let Err(error) = write_files(&temporary, snapshot, observe) {
            // On a full disk the next attempt needs the space; the first error is the one to tell.
            let _ = remove(&temporary);
            return Err(error);
        }
        fs::rename(&temporary, &path).map_err(TrainError::io("write", &path))?;
        sync_names(&self.directory);
        observe(SaveStep::Renamed);
        self.point_latest(snapshot.state.step)?;
        sync_names(&self.directory);
        observe(SaveStep::LatestMoved);
        self.remove_old(keep, observe)
    }

    /// Completes a save that ended between the new checkpoint's name and the removal of the old
    /// ones.
    pub(crate) fn tidy(&self, keep: Keep) -> Result<()> {
        match self.steps()?.last() {
            None => Ok(()),
            Some(&newest) => {
                self.point_latest(newest).and_then(|()| self.remove_old(keep, &|_| ()))
            }
        }
    }

    fn point_latest(&self, step: usize) -> Result<()> {
        let link = self.directory.join(LATEST);
        let temporary = partial(&link);
        remove(&temporary)?;
        point(&temporary, &format!("step-{step}"))
            .and_then(|()| fs::rename(&temporary, &link))
            .map_err(TrainError::io("write", &link))
    }

    fn remove_old(&self, keep: Keep, observe: &dyn Fn(SaveStep)) -> Result<()> {
        let steps = self.steps()?;
        let old = &steps[..steps.len().saturating_sub(keep.last)];
        for step in old.iter().filter(|&&step| keep.every == 0 || step % keep.every != 0) {
            let path = self.path(*step);
            let aside = partial(&path);
            // Without its name first: a directory removed half way must not look like a checkpoint.
            fs::rename(&path, &aside).map_err(TrainError::io("remove", &path))?;
            sync_names(&self.directory);
            observe(SaveStep::OldSetAside);
            remove(&aside)?;
            observe(SaveStep::OldRemoved);
        }
        Ok(())
    }
}

/// Writes all files into a fresh directory, each synced to disk, and syncs the directory.
fn write_files(directory: &Path, snapshot: &Snapshot, observe: &dyn Fn(SaveStep)) -> Result<()> {
    fs::create_dir_all(directory).map_err(TrainError::io("create", directory))?;
    // The directory of all checkpoints may be new as well.
    directory.ancestors().skip(1).take(2).for_each(sync_names);
    observe(SaveStep::Begun);
    ssa_model::checkpoint::save(directory, snapshot.plan.model(), &snapshot.parameters)
        .map_err(TrainError::with_remedy)?;
    let tokenizer = copy_tokenizer(snapshot.plan.tokenizer(), directory)?;
    observe(SaveStep::ModelWritten);
    let moments: Vec<(String, &Tensor)> =
        moments("m", &snapshot.m).chain(moments("v", &snapshot.v)).collect();
    write_tensors(&directory.join(OPTIMIZER), &moments, &[]).map_err(TrainError::with_remedy)?;
    observe(SaveStep::OptimizerWritten);
    write_text(&directory.join(RUN_CONFIG), &snapshot.plan.config().to_toml())?;
    observe(SaveStep::ConfigWritten);
    let state = serde_json::to_string_pretty(&snapshot.state).map_err(io::Error::from);
    let path = directory.join(STATE);
    write_text(&path, &(state.map_err(TrainError::io("write", &path))? + "\n"))?;
    observe(SaveStep::StateWritten);
    sums::write(directory, &[&FILES[..], &tokenizer].concat())?;
    sync_names(directory);
    observe(SaveStep::SumsWritten);
    Ok(())
}

fn moments<'a>(
    which: &'a str,
    moments: &'a Parameters,
) -> impl Iterator<Item = (String, &'a Tensor)> {
    moments.named().into_iter().map(move |(name, tensor)| (format!("{which}.{name}"), tensor))
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    replace_file(path, |file| file.write_all(text.as_bytes())).map_err(TrainError::with_remedy)
}

#[cfg(unix)]
fn point(link: &Path, target: &str) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Links need a privilege on some systems: a file with the name tells as much.
#[cfg(not(unix))]
fn point(link: &Path, target: &str) -> io::Result<()> {
    fs::write(link, target)
}
