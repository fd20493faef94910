//! Saving in the background.

use std::panic;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::{CheckpointError, Checkpoints, Keep, SaveStep, Snapshot};
use crate::{Result, TrainError};

/// Told each step of saving, on the thread that saves.
pub(crate) type Observer = Arc<dyn Fn(SaveStep) + Send + Sync>;

/// Saves checkpoints on a thread of its own, one at a time: a second one waits for the first before
/// it is even copied, so memory never holds more than one snapshot.
pub(crate) struct Writer {
    checkpoints: Checkpoints,
    keep: Keep,
    observer: Observer,
    in_flight: Option<JoinHandle<Result<()>>>,
}

impl Writer {
    pub(crate) fn new(checkpoints: Checkpoints, keep: Keep) -> Self {
        Self { checkpoints, keep, observer: Arc::new(|_| ()), in_flight: None }
    }

    pub(crate) fn observe(&mut self, observer: Observer) {
        self.observer = observer;
    }

    /// Waits for the save in flight, takes a snapshot and begins to save it.
    ///
    /// # Errors
    /// As [`Writer::wait`], and what taking the snapshot returns.
    pub(crate) fn save(&mut self, snapshot: impl FnOnce() -> Result<Snapshot>) -> Result<()> {
        self.wait()?;
        let snapshot = snapshot()?;
        let (checkpoints, keep, observer) =
            (self.checkpoints.clone(), self.keep, self.observer.clone());
        let job = move || save(&checkpoints, &snapshot, keep, &*observer);
        let thread = thread::Builder::new().name("checkpoint".to_owned()).spawn(job);
        let error = TrainError::io("start a thread to write", self.checkpoints.directory());
        self.in_flight = Some(thread.map_err(error)?);
        Ok(())
    }

    /// Waits until nothing is in flight.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] if the save in flight failed.
    pub(crate) fn wait(&mut self) -> Result<()> {
        match self.in_flight.take() {
            None => Ok(()),
            Some(thread) => thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload)),
        }
    }

    /// Reports a save that has ended, without waiting.
    ///
    /// # Errors
    /// As [`Writer::wait`].
    pub(crate) fn poll(&mut self) -> Result<()> {
        if self.in_flight.as_ref().is_some_and(JoinHandle::is_finished) {
            self.wait()
        } else {
            Ok(())
        }
    }
}

impl Drop for Writer {
    /// A run that ends with another error still completes the checkpoint it began.
    fn drop(&mut self) {
        if let Some(thread) = self.in_flight.take() {
            let _ = thread.join();
        }
    }
}

fn save(
    checkpoints: &Checkpoints,
    snapshot: &Snapshot,
    keep: Keep,
    observe: &dyn Fn(SaveStep),
) -> Result<()> {
    checkpoints.save(snapshot, keep, observe).map_err(|source| {
        let older = checkpoints.steps().unwrap_or_default().last().copied();
        CheckpointError::NotSaved { step: snapshot.state.step, older, source: Box::new(source) }
            .into()
    })
}
