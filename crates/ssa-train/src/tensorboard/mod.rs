//! TensorBoard event files.
//!
//! An event file is a sequence of records ([`mod@record`]), each an `Event` message of TensorFlow
//! ([`message`]). The first names the version of the format, the second marks the start of a
//! session: TensorBoard then discards the events of an interrupted session for the same and later
//! steps.

mod message;
mod record;
mod scalars;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ssa_files::{AppendFile, FileError, Operation};

use crate::Result;
use crate::measurements::Measurements;
use crate::metrics::StepMetrics;

use message::{Content, Event};
use record::record;
use scalars::{measured_scalars, step_scalars};

/// The directory of event files in a run directory.
const TENSORBOARD: &str = "tensorboard";
/// The file name prefix by which TensorBoard recognizes event files.
const PREFIX: &str = "events.out.tfevents.";

/// Writes the scalars of a run to an event file. Each write reaches the operating system before the
/// call returns.
#[derive(Debug)]
pub(crate) struct EventWriter {
    file: AppendFile,
}

impl EventWriter {
    /// Creates a new file in `tensorboard/` of a run, for a session whose first step, counted from
    /// 1, is `first_step`. TensorBoard reads the files of a directory in name order.
    ///
    /// # Errors
    /// [`TrainError::File`](crate::TrainError::File).
    pub(crate) fn create(run: &Path, first_step: usize) -> Result<Self> {
        let directory = run.join(TENSORBOARD);
        ssa_files::create_directories(&directory)?;
        let mut file = create_file(&directory)?;
        let start = [(0, Content::FileVersion), (first_step, Content::SessionStart)];
        let records = start.map(|(step, content)| {
            record(&Event { wall_time: wall_time(), step, content }.encode())
        });
        file.append(&records.concat())?;
        Ok(Self { file })
    }

    /// Appends the metrics of a step and the measurements after it.
    ///
    /// # Errors
    /// [`TrainError::File`](crate::TrainError::File), for example on a full disk.
    pub(crate) fn write(&mut self, metrics: &StepMetrics, measured: &Measurements) -> Result<()> {
        let mut scalars = step_scalars(metrics);
        scalars.extend(measured_scalars(measured));
        let event = Event {
            wall_time: wall_time(),
            step: metrics.step,
            content: Content::Scalars(&scalars),
        };
        Ok(self.file.append(&record(&event.encode()))?)
    }

    /// Waits until all writes are on disk.
    ///
    /// # Errors
    /// [`TrainError::File`](crate::TrainError::File).
    pub(crate) fn sync(&self) -> Result<()> {
        Ok(self.file.sync()?)
    }
}

/// Removes the event files of a run, and their directory if it is empty afterwards.
pub(crate) fn remove(run: &Path) -> Result<()> {
    let directory = run.join(TENSORBOARD);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(FileError::at(Operation::Read, &directory))?,
    };
    for entry in entries {
        let path = entry.map_err(FileError::at(Operation::Read, &directory))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
            ssa_files::remove_file(&path)?;
        }
    }
    Ok(ssa_files::remove_directory_if_empty(&directory)?)
}

/// Creates a file with the time in its name: seconds, as TensorBoard expects, then nanoseconds.
fn create_file(directory: &Path) -> Result<AppendFile> {
    let mut now = since_epoch();
    loop {
        let name = format!("{PREFIX}{:010}.{:09}.ssa", now.as_secs(), now.subsec_nanos());
        match AppendFile::create_new(&directory.join(name)) {
            // A clock that was set back can repeat a name: try the next one.
            Err(error) if error.source.kind() == ErrorKind::AlreadyExists => {
                now += Duration::from_nanos(1);
            }
            file => return Ok(file?),
        }
    }
}

fn wall_time() -> f64 {
    since_epoch().as_secs_f64()
}

fn since_epoch() -> Duration {
    // A clock before 1970 is not an error.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
