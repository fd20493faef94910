//! Prefetching batches on a separate thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use crate::loader::{Batch, Loader};
use crate::{DataError, Result};

/// Prefetches the batches of a [`Loader`], as long as they are requested in order.
///
/// Any index may be requested at any time; the result is the same as from the loader. After a jump
/// (a resumed run, a rollback), prefetching restarts there. At most `depth` batches wait in memory
/// while one more is being read.
#[derive(Debug)]
pub struct Prefetch {
    loader: Arc<Loader>,
    depth: usize,
    ahead: Option<Ahead>,
}

/// A running thread.
#[derive(Debug)]
struct Ahead {
    /// The next batch in the channel.
    next: u64,
    /// `None` after the thread was told to stop.
    batches: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Creates a prefetcher that reads up to `depth` batches ahead of the last requested one.
    ///
    /// # Errors
    /// [`DataError::Setting`] if `depth` is 0.
    pub fn new(loader: Loader, depth: usize) -> Result<Self> {
        if depth == 0 {
            return Err(DataError::setting("depth", "at least 1", depth));
        }
        Ok(Self { loader: Arc::new(loader), depth, ahead: None })
    }

    /// The loader.
    pub fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Returns batch `index`. Waits only if it has not been read yet.
    ///
    /// # Errors
    /// Same as [`Loader::batch`], reported when this batch is requested; it may be requested again.
    /// [`DataError::Thread`] if no thread can be started.
    pub fn batch(&mut self, index: u64) -> Result<Batch> {
        let ahead = match self.ahead.take() {
            Some(ahead) if ahead.next == index => ahead,
            other => {
                drop(other);
                self.start(index)?
            }
        };
        ahead.serve().map(|(batch, ahead)| {
            self.ahead = Some(ahead);
            batch
        })
    }

    fn start(&self, first: u64) -> Result<Ahead> {
        let (sender, batches) = sync_channel(self.depth);
        let loader = Arc::clone(&self.loader);
        let read = move || {
            let mut index = first;
            loop {
                let batch = loader.batch(index);
                let failed = batch.is_err();
                // The receiver is gone: the run has ended or jumped.
                if sender.send(batch).is_err() || failed {
                    return;
                }
                index = index.wrapping_add(1);
            }
        };
        let thread = thread::Builder::new()
            .name("ssa-data: read ahead".to_owned())
            .spawn(read)
            .map_err(|error| DataError::Thread { cause: error.to_string() })?;
        Ok(Ahead { next: first, batches: Some(batches), thread: Some(thread) })
    }
}

impl Ahead {
    /// Receives the next batch. After an error the thread has ended, and so has this value.
    fn serve(mut self) -> Result<(Batch, Self)> {
        match self.batches.as_ref().map(Receiver::recv) {
            Some(Ok(batch)) => {
                self.next = self.next.wrapping_add(1);
                batch.map(|batch| (batch, self))
            }
            // The thread ended without sending anything.
            _ => Err(DataError::ReaderStopped {
                cause: self.stop().unwrap_or("it stopped by itself".to_owned()),
            }),
        }
    }

    /// Stops the thread after its current batch; returns the panic message if it panicked.
    fn stop(&mut self) -> Option<String> {
        drop(self.batches.take());
        let panic = self.thread.take()?.join().err()?;
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Some(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned())
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // A panic at this point does not affect the batches already returned.
        self.stop();
    }
}

#[cfg(test)]
mod tests;
