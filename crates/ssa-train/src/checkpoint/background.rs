//! Saving in the background.

use std::panic;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::{Checkpoints, Retention, Snapshot};
use crate::lock::RunLock;
use crate::{Result, TrainError};

/// Saves checkpoints on a separate thread, one at a time. A second save waits for the first before
/// it takes its snapshot, so memory never holds more than one snapshot.
pub(crate) struct BackgroundSaver {
    checkpoints: Checkpoints,
    retention: Retention,
    lock: RunLock,
    in_flight: Option<JoinHandle<Result<()>>>,
}

impl BackgroundSaver {
    pub(crate) fn new(checkpoints: Checkpoints, retention: Retention, lock: RunLock) -> Self {
        Self { checkpoints, retention, lock, in_flight: None }
    }

    /// Waits for the save in progress, takes a snapshot and starts to save it; saves it at once if
    /// the system refuses to start a thread.
    ///
    /// # Errors
    /// Same as [`wait`](Self::wait), and any error of `snapshot`.
    pub(crate) fn save(&mut self, snapshot: impl FnOnce() -> Result<Snapshot>) -> Result<()> {
        self.wait()?;
        let snapshot = snapshot()?;
        let (checkpoints, lock) = (self.checkpoints.clone(), self.lock.clone());
        let retention = self.retention;
        let job = Arc::new(move || save(&checkpoints, &snapshot, retention, &lock));
        let on_thread = Arc::clone(&job);
        let thread =
            thread::Builder::new().name("checkpoint".to_owned()).spawn(move || on_thread());
        match thread {
            Ok(thread) => self.in_flight = Some(thread),
            Err(_) => job()?,
        }
        Ok(())
    }

    /// Waits for the save in progress.
    ///
    /// # Errors
    /// [`TrainError::CheckpointNotSaved`] if the save in progress failed.
    pub(crate) fn wait(&mut self) -> Result<()> {
        match self.in_flight.take() {
            None => Ok(()),
            Some(thread) => thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload)),
        }
    }

    /// Reports a save that has finished, without waiting.
    ///
    /// # Errors
    /// Same as [`wait`](Self::wait).
    pub(crate) fn poll(&mut self) -> Result<()> {
        if self.in_flight.as_ref().is_some_and(JoinHandle::is_finished) {
            self.wait()
        } else {
            Ok(())
        }
    }
}

impl Drop for BackgroundSaver {
    /// A run that ends with a different error still completes the checkpoint in progress.
    fn drop(&mut self) {
        if let Some(thread) = self.in_flight.take() {
            let _ = thread.join();
        }
    }
}

fn save(
    checkpoints: &Checkpoints,
    snapshot: &Snapshot,
    retention: Retention,
    lock: &RunLock,
) -> Result<()> {
    checkpoints.save(snapshot, retention, lock).map_err(|source| {
        let older = checkpoints.steps().unwrap_or_default().last().copied();
        let (step, source) = (snapshot.state.step, Box::new(source));
        TrainError::CheckpointNotSaved { step, older, source }
    })
}
