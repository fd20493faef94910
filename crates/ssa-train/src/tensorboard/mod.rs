//! TensorBoard event files.
//!
//! An event file is a sequence of records ([`mod@record`]), each an `Event` message of TensorFlow
//! ([`message`]). The first names the version of the format, the second marks the beginning of a
//! session: TensorBoard then forgets what an interrupted session logged for the same and later
//! steps.

mod message;
mod record;
mod scalars;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{Measurements, Result, StepMetrics, TrainError};

use message::{Event, What};
use record::record;
use scalars::{measured_scalars, step_scalars};

/// What TensorBoard recognises an event file by.
const PREFIX: &str = "events.out.tfevents.";

/// Writes the scalars of a run to an event file, each step handed to the system at once.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Creates a new file in `directory` for a session whose first step, counted from 1, is
    /// `first_step`. TensorBoard reads the files of a directory in the order they were created in.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file.
    pub fn create(directory: &Path, first_step: usize) -> Result<Self> {
        fs::create_dir_all(directory).map_err(TrainError::io("create the directory", directory))?;
        let (path, file) = create_file(directory)?;
        let mut writer = Self { path, file };
        let start = [(0, What::FileVersion), (first_step, What::SessionStart)];
        let records = start
            .map(|(step, what)| record(&Event { wall_time: wall_time(), step, what }.encode()));
        writer.append(&records.concat())?;
        Ok(writer)
    }

    /// Appends what one step reported and what was measured after it.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file, for example on a full disk.
    pub fn write(&mut self, metrics: &StepMetrics, measured: &Measurements) -> Result<()> {
        let mut scalars = step_scalars(metrics);
        scalars.extend(measured_scalars(measured));
        let event =
            Event { wall_time: wall_time(), step: metrics.step, what: What::Scalars(&scalars) };
        self.append(&record(&event.encode()))
    }

    /// Waits until all that was written is on disk.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(TrainError::io("write", &self.path))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(TrainError::io("write", &self.path))
    }
}

/// Removes the event files of a directory, and the directory if nothing else is in it.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(TrainError::io("read", directory))?,
    };
    for entry in entries {
        let path = entry.map_err(TrainError::io("read", directory))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
            fs::remove_file(&path).map_err(TrainError::io("remove", &path))?;
        }
    }
    crate::run_dir::remove_if_empty(directory)
}

/// A file whose name has the time in it, in seconds as TensorBoard expects, and in more detail
/// after that.
fn create_file(directory: &Path) -> Result<(PathBuf, File)> {
    loop {
        let now = since_epoch();
        let path =
            directory.join(format!("{PREFIX}{:010}.{:09}.ssa", now.as_secs(), now.subsec_nanos()));
        match File::create_new(&path) {
            // The clock moves on, or was set back to a moment that is taken: a later name will be
            // free.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            file => return Ok((path.clone(), file.map_err(TrainError::io("create", &path))?)),
        }
    }
}

fn wall_time() -> f64 {
    since_epoch().as_secs_f64()
}

fn since_epoch() -> Duration {
    // A clock before 1970 is no reason to stop.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
