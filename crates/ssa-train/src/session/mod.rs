//! A fault-tolerant training session: a trainer in a run directory.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ssa_data::PackedRows;
use ssa_model::Model;
use ssa_ranks::Ranks;

use crate::checkpoint::{BackgroundSaver, Checkpoint, Retention};
use crate::config::CheckpointSection;
use crate::diagnosis::{BadStep, Diagnosis};
use crate::fingerprint::held_out_fingerprint;
use crate::journal::{Journal, RunEvent};
use crate::measurements::Measurements;
use crate::metrics::{LoggedStep, StepMetrics};
use crate::run_dir::RunDir;
use crate::step_log::StepLog;
use crate::trainer::Trainer;
use crate::{Result, TrainError};

#[cfg(test)]
mod tests;

/// Seconds in a minute.
const MINUTE: f64 = 60.0;

/// An item of [`Session`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A step is done. The caller passes measurements after it to [`Session::keep`].
    Step(Box<StepMetrics>),
    /// The loss or the gradient of a step was not finite: its rows are skipped, and the step is
    /// retried on the next ones.
    Skipped(BadStep),
    /// Too many bad steps in a row: the run rolled back to a checkpoint.
    RolledBack {
        /// The last of them.
        bad: BadStep,
        /// The step of the checkpoint, after which the run continues.
        to: usize,
    },
}

/// Runs the remaining steps of a trainer, and saves to the run directory what is needed to resume
/// after a crash.
///
/// It is an iterator over events. Call [`finish`](Self::finish) after the last one, or
/// [`interrupt`](Self::interrupt) at any time before. A session that is only dropped leaves the
/// same as a killed process: the last checkpoint.
///
/// # Determinism
/// An interrupted and resumed run gives the same weights and metrics (except times), bit for bit,
/// as an uninterrupted one, unless it rolls back: a rollback goes to the newest checkpoint, and
/// interruptions add checkpoints.
pub struct Session<'a> {
    run_dir: &'a RunDir,
    trainer: Trainer,
    log: StepLog,
    history: Vec<LoggedStep>,
    /// A step that is done but not logged yet.
    pending: Option<StepMetrics>,
    journal: Journal,
    saver: BackgroundSaver,
    /// Fingerprint of the held-out rows, if set.
    held_out_sha256: Option<String>,
    settings: CheckpointSection,
    /// Step of the newest checkpoint, saved or being saved.
    saved: Option<usize>,
    saved_at: Instant,
    /// Step of the checkpoint of the last rollback.
    rolled_back_to: Option<usize>,
    /// Set by an error or a stop.
    ended: bool,
}

impl<'a> Session<'a> {
    /// Starts at the trainer's step: the first step of a new run, or the step after the newest
    /// checkpoint.
    ///
    /// # Errors
    /// [`TrainError::File`] or [`TrainError::Metrics`] name the file.
    pub fn new(run_dir: &'a RunDir, trainer: Trainer) -> Result<Self> {
        let tensorboard = trainer.plan().config().monitoring.tensorboard;
        let (log, kept) = StepLog::open(run_dir.path(), trainer.done(), tensorboard)?;
        let event = if run_dir.journal()?.is_empty() {
            RunEvent::Started { directory: working_directory() }
        } else {
            RunEvent::Resumed { step: trainer.done(), lost_steps: kept.cut }
        };
        let mut journal = Journal::open(run_dir.path())?;
        journal.write(event)?;
        let settings = trainer.plan().config().checkpoint.clone();
        let retention = Retention { last: settings.keep_last, every: settings.keep_every };
        run_dir.checkpoints().tidy(retention)?;
        Ok(Self {
            saved: run_dir.checkpoints().steps()?.last().copied(),
            saved_at: Instant::now(),
            saver: BackgroundSaver::new(run_dir.checkpoints(), retention, run_dir.shared_lock()),
            held_out_sha256: None,
            run_dir,
            trainer,
            log,
            history: kept.steps,
            pending: None,
            journal,
            settings,
            rolled_back_to: None,
            ended: false,
        })
    }

    /// Records the held-out rows, so that a resumed run measures on the same ones
    /// ([`Checkpoint::check_held_out`]).
    ///
    /// # Errors
    /// [`TrainError::Data`] if a row cannot be read.
    pub fn set_held_out<'r>(
        &mut self,
        rows: impl IntoIterator<Item = &'r PackedRows>,
    ) -> Result<()> {
        self.held_out_sha256 = Some(held_out_fingerprint(rows)?);
        Ok(())
    }

    /// Ends the iterator once `flag` is set, even within a step unless there are other ranks. Call
    /// [`interrupt`](Self::interrupt) afterwards.
    pub fn stop_on(&mut self, flag: Arc<AtomicBool>) {
        self.trainer.stop_on(flag);
    }

    /// The trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// As [`Trainer::measure`].
    ///
    /// # Errors
    /// As [`Trainer::measure`].
    pub fn measure(&mut self, request: u8) -> Result<(&Model, &mut Ranks)> {
        self.trainer.measure(request)
    }

    /// The directory of the run.
    pub fn run_dir(&self) -> &RunDir {
        self.run_dir
    }

    /// Saves the current model to `checkpoint/`, for a run that ends with an error.
    ///
    /// # Errors
    /// [`TrainError::File`] names the file.
    pub fn save_model(&mut self) -> Result<()> {
        let model = self.trainer.master_model()?;
        self.run_dir.save(&model, self.trainer.plan().tokenizer())
    }

    /// Takes the steps done before this session; empty when called again.
    pub fn take_history(&mut self) -> Vec<LoggedStep> {
        std::mem::take(&mut self.history)
    }

    /// Logs the last yielded step with the measurements after it, and saves a checkpoint if one is
    /// due. A step that is not kept before the next event is logged without measurements. If
    /// measuring fails, drop the session instead: the step is then neither logged nor saved, and a
    /// resumed run repeats the step and the measurements.
    ///
    /// # Errors
    /// [`TrainError::File`]; [`TrainError::LockLost`]; [`TrainError::CheckpointNotSaved`].
    pub fn keep(&mut self, measured: Measurements) -> Result<()> {
        let Some(metrics) = self.pending.take() else { return Ok(()) };
        self.run_dir.check_lock()?;
        self.log.write(&LoggedStep { metrics, measured })?;
        if self.is_due() { self.save() } else { Ok(()) }
    }

    /// Saves everything so that the run can be resumed, and records it in the journal.
    ///
    /// # Errors
    /// [`TrainError::CheckpointNotSaved`]; [`TrainError::File`].
    pub fn interrupt(mut self) -> Result<()> {
        self.run_dir.check_lock()?;
        self.keep(Measurements::default())?;
        self.save()?;
        self.trainer.release_ranks()?;
        self.saver.wait()?;
        self.journal.write(RunEvent::Interrupted { step: self.trainer.done() })
    }

    /// Saves the last checkpoint and the model, once all steps are done; returns the trainer, with
    /// its ranks.
    ///
    /// # Errors
    /// Same as [`interrupt`](Self::interrupt).
    pub fn finish(mut self) -> Result<Trainer> {
        self.run_dir.check_lock()?;
        self.keep(Measurements::default())?;
        self.save()?;
        self.saver.wait()?;
        self.save_model()?;
        self.journal.write(RunEvent::Trained { step: self.trainer.done() })?;
        Ok(self.trainer)
    }

    /// Runs one step, or recovers from a bad one.
    fn advance(&mut self) -> Result<Event> {
        self.saver.poll()?;
        match self.trainer.step() {
            Ok(metrics) => {
                self.pending = Some(metrics.clone());
                Ok(Event::Step(Box::new(metrics)))
            }
            Err(TrainError::NotFinite { step, what, value }) => {
                self.recover(BadStep { step, what, value, rows: self.trainer.next_rows() })
            }
            Err(error) => Err(error),
        }
    }

    fn is_due(&self) -> bool {
        let CheckpointSection { every_steps, every_minutes, .. } = self.settings;
        let by_steps = every_steps > 0 && self.trainer.done().is_multiple_of(every_steps);
        let pause = Duration::from_secs_f64(every_minutes * MINUTE);
        by_steps || (every_minutes > 0.0 && self.saved_at.elapsed() >= pause)
    }

    /// Starts to save a checkpoint, unless this step already has one or no step is done.
    fn save(&mut self) -> Result<()> {
        let step = self.trainer.done();
        if step > 0 && self.saved != Some(step) {
            // A checkpoint must never be ahead of the metrics.
            self.log.sync()?;
            self.saver.save(|| {
                let mut snapshot = self.trainer.snapshot()?;
                snapshot.state.held_out_sha256.clone_from(&self.held_out_sha256);
                Ok(snapshot)
            })?;
            self.saved = Some(step);
            self.saved_at = Instant::now();
        }
        Ok(())
    }

    /// Skips a bad step, or rolls back to a checkpoint after too many in a row.
    fn recover(&mut self, bad: BadStep) -> Result<Event> {
        let in_row = self.trainer.bad_steps().in_row + 1;
        if in_row < self.trainer.plan().config().training.max_bad_steps {
            self.skip_rows(&bad)?;
            return Ok(Event::Skipped(bad));
        }
        self.saver.wait()?;
        match self.roll_back_target()? {
            Some(checkpoint) => {
                let to = checkpoint.state().step;
                self.skip_rows(&bad)?;
                self.journal.write(RunEvent::RolledBack { step: self.trainer.done(), to })?;
                self.trainer.roll_back(&checkpoint)?;
                let tensorboard = self.trainer.plan().config().monitoring.tensorboard;
                self.log = StepLog::open(self.run_dir.path(), to, tensorboard)?.0;
                self.rolled_back_to = Some(to);
                Ok(Event::RolledBack { bad, to })
            }
            None => {
                let place = self.trainer.first_bad_value()?;
                self.journal.write(RunEvent::Diverged { step: bad.step, place: place.clone() })?;
                let rolled_back_to = self.rolled_back_to;
                Err(TrainError::Diverged(Box::new(Diagnosis {
                    bad,
                    in_row,
                    rolled_back_to,
                    place,
                })))
            }
        }
    }

    fn skip_rows(&mut self, bad: &BadStep) -> Result<()> {
        self.trainer.skip_rows();
        self.journal.write(RunEvent::Skipped {
            step: bad.step,
            what: bad.what.to_owned(),
            value: bad.value.to_string(),
            rows: bad.rows.iter().map(|place| (place.corpus, place.row)).collect(),
        })
    }

    /// The newest checkpoint, unless the run has already rolled back to it.
    fn roll_back_target(&self) -> Result<Option<Checkpoint>> {
        let newest = self.run_dir.checkpoints().newest()?;
        Ok(newest.filter(|checkpoint| self.rolled_back_to != Some(checkpoint.state().step)))
    }
}

/// The working directory, unless it was removed or is not UTF-8.
fn working_directory() -> Option<String> {
    std::env::current_dir().ok()?.into_os_string().into_string().ok()
}

/// Runs the remaining steps. An error is the last item; a stop ends the iterator without one.
impl Iterator for Session<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let result = match self.keep(Measurements::default()) {
            Ok(()) if self.trainer.done() >= self.trainer.plan().steps() => return None,
            Ok(()) => self.advance(),
            Err(error) => Err(error),
        };
        self.ended = result.is_err();
        if matches!(result, Err(TrainError::Stopped)) { None } else { Some(result) }
    }
}
