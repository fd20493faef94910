//! Reading batches ahead on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use crate::loader::{Batch, Loader};
use crate::{DataError, Result};

/// Serves the batches of a [`Loader`], each read before it is asked for as long as they are asked
/// for in order.
///
/// Any index may be asked for at any time; the result is the same as the loader's own. After a jump
/// (a resumed run, a step taken back) reading ahead starts anew from there. At most `depth` batches
/// wait in memory, and one more is being read.
#[derive(Debug)]
pub struct Prefetch {
    loader: Arc<Loader>,
    depth: usize,
    ahead: Option<Ahead>,
}

/// A thread at work.
#[derive(Debug)]
struct Ahead {
    /// The batch that comes next out of the channel.
    next: u64,
    /// There until the thread is told to end.
    batches: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Reads up to `depth` batches ahead, from the first one asked for on.
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

    /// Batch `index`: waits only if it has not been read yet.
    ///
    /// # Errors
    /// What [`Loader::batch`] reports for this batch, and not before it is asked for; the same
    /// batch may be asked for again. [`DataError::ReaderStopped`] if no thread can be started.
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
                // Nobody listens any more: the run is over or has jumped.
                if sender.send(batch).is_err() || failed {
                    return;
                }
                index = index.wrapping_add(1);
            }
        };
        let thread = thread::Builder::new()
            .name("ssa-data: read ahead".to_owned())
            .spawn(read)
            .map_err(|error| DataError::ReaderStopped { cause: error.to_string() })?;
        Ok(Ahead { next: first, batches: Some(batches), thread: Some(thread) })
    }
}

impl Ahead {
    /// The next batch. After an error the thread has ended, and so has this.
    fn serve(mut self) -> Result<(Batch, Self)> {
        match self.batches.as_ref().map(Receiver::recv) {
            Some(Ok(batch)) => {
                self.next = self.next.wrapping_add(1);
                batch.map(|batch| (batch, self))
            }
            // Nothing was sent, not even an error.
            _ => Err(DataError::ReaderStopped {
                cause: self.stop().unwrap_or("it stopped by itself".to_owned()),
            }),
        }
    }

    /// Ends the thread, which notices when it has read the batch at hand; returns the message if it
    /// panicked.
    fn stop(&mut self) -> Option<String> {
        drop(self.batches.take());
        let panic = self.thread.take()?.join().err()?;
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Some(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned())
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // A panic of a thread that nobody needs any more says nothing about the batches served.
        self.stop();
    }
}

#[cfg(test)]
mod tests;
