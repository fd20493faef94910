//! Heartbeats, and the end of all ranks when one of them ends.

use std::io::{self, BufReader};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::deadlines::Deadlines;
use crate::mesh;
use crate::message::{Cause, Message, Notice, Place};
use crate::{RanksError, Result};

/// The wait between two looks for a notice.
const TICK: Duration = Duration::from_millis(5);

/// Told of the end of another rank while this one computes on.
pub(crate) type OnEnd = Box<dyn Fn(&RanksError) + Send + Sync>;

/// A control connection to a rank.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) rank: usize,
    pub(crate) host: String,
    pub(crate) stream: TcpStream,
}

/// This rank on its control connections: rank 0 has one to every rank, the others one to rank 0.
pub(crate) struct Control {
    rank: usize,
    host: String,
    deadlines: Deadlines,
    place: Mutex<Place>,
    peers: Vec<Connected>,
    /// The first rank that ended.
    notice: OnceLock<Notice>,
    left: AtomicBool,
    /// Whether the main thread knows of the notice and ends by itself.
    noticed: AtomicBool,
    /// The data connections.
    data: Vec<TcpStream>,
    on_end: OnEnd,
}

struct Connected {
    rank: usize,
    host: String,
    writer: Mutex<TcpStream>,
    place: Mutex<Place>,
}

/// Ends all ranks when this one fails. Without other ranks it does nothing.
#[derive(Clone)]
pub struct Alarm(pub(crate) Option<Arc<Control>>);

impl Alarm {
    /// Tells all ranks that this one ends with an error and an exit code, unless the ranks end
    /// already.
    pub fn raise(&self, message: &str, code: u8) {
        let Some(control) = &self.0 else { return };
        if !control.left.load(Ordering::SeqCst) {
            let cause = Cause::Failed { message: message.to_owned(), code };
            control.tell(control.own_notice(cause));
        }
    }
}

impl Control {
    /// Starts the heartbeat and listens to the peers.
    pub(crate) fn start(
        (rank, host): (usize, String),
        peers: Vec<Peer>,
        data: Vec<TcpStream>,
        deadlines: Deadlines,
        on_end: OnEnd,
    ) -> io::Result<Arc<Self>> {
        let mut readers = Vec::new();
        let mut connected = Vec::new();
        for Peer { rank, host, stream } in peers {
            stream.set_read_timeout(Some(deadlines.silence))?;
            // A stopped rank must not stop this one.
            stream.set_write_timeout(Some(deadlines.grace))?;
            readers.push(BufReader::new(stream.try_clone()?));
            let (writer, place) = (Mutex::new(stream), Mutex::default());
            connected.push(Connected { rank, host, writer, place });
        }
        let control = Arc::new(Self {
            rank,
            host,
            deadlines,
            place: Mutex::default(),
            peers: connected,
            notice: OnceLock::new(),
            left: AtomicBool::new(false),
            noticed: AtomicBool::new(false),
            data,
            on_end,
        });
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
        };
        for (index, reader) in readers.into_iter().enumerate() {
            let control = control.clone();
            spawn("ranks: listen", Box::new(move || control.listen(index, reader)))?;
        }
        let beating = control.clone();
        spawn("ranks: heartbeat", Box::new(move || beating.beat()))?;
        Ok(control)
    }

    /// Says where this rank is.
    pub(crate) fn at(&self, step: Option<usize>, operation: &str) {
        let mut place = lock(&self.place);
        place.step = step.unwrap_or(place.step);
        operation.clone_into(&mut place.operation);
    }

    /// The error of a broken data connection: the notice that explains it, if one comes.
    pub(crate) fn explain(&self, rank: usize, cause: &io::Error) -> RanksError {
        if let Err(error) = self.await_notice() {
            return error;
        }
        let place = lock(&self.place).clone();
        let known = self.peers.iter().find(|peer| peer.rank == rank);
        let host = known.map_or_else(|| "its host".to_owned(), |peer| peer.host.clone());
        let cause = Cause::Lost(format!("the connection to it broke: {cause}"));
        let notice = Notice { rank, host, place, cause };
        self.tell(notice.clone());
        RanksError::Ended(self.notice.get().cloned().unwrap_or(notice))
    }

    /// Waits a moment for a notice; fails if it came.
    pub(crate) fn await_notice(&self) -> Result<()> {
        self.noticed.store(true, Ordering::SeqCst);
        let start = Instant::now();
        while start.elapsed() < self.deadlines.grace {
            self.check()?;
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Fails if a rank has ended.
    pub(crate) fn check(&self) -> Result<()> {
        self.notice.get().map_or(Ok(()), |notice| {
            self.noticed.store(true, Ordering::SeqCst);
            Err(RanksError::Ended(notice.clone()))
        })
    }

    /// Ends the connections as planned.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::SeqCst);
        self.send(&Message::Left);
    }

    fn own_notice(&self, cause: Cause) -> Notice {
        let (rank, host, place) = (self.rank, self.host.clone(), lock(&self.place).clone());
        Notice { rank, host, place, cause }
    }

    /// Makes this the reason for the end, unless there is one, and tells the others.
    fn tell(&self, notice: Notice) -> bool {
        let first = self.notice.set(notice.clone()).is_ok();
        if first {
            self.send(&Message::Ended(notice));
            mesh::close(&self.data);
        }
        first
    }

    fn send(&self, message: &Message) {
        for peer in &self.peers {
            // A peer that does not receive is noticed by its silence.
            let _ = message.write(&mut *lock(&peer.writer));
        }
    }

    fn ends(&self) -> bool {
        self.left.load(Ordering::SeqCst) || self.notice.get().is_some()
    }

    fn beat(&self) {
        while !self.ends() {
            self.send(&Message::Alive(lock(&self.place).clone()));
            thread::sleep(self.deadlines.heartbeat);
        }
    }

    /// Hears a peer until it leaves or ends.
    fn listen(&self, index: usize, mut reader: BufReader<TcpStream>) {
        let peer = &self.peers[index];
        let notice = loop {
            match Message::read(&mut reader) {
                Ok(Some(Message::Alive(place))) => *lock(&peer.place) = place,
                Ok(Some(Message::Left)) => return,
                Ok(Some(Message::Ended(notice))) => break notice,
                other => {
                    let place = self.place_of(peer);
                    let cause = Cause::Lost(self.how(&other));
                    break Notice { rank: peer.rank, host: peer.host.clone(), place, cause };
                }
            }
        };
        if self.left.load(Ordering::SeqCst) || !self.tell(notice.clone()) {
            return;
        }
        // The main thread ends at its next exchange, if that comes soon.
        thread::sleep(self.deadlines.grace);
        if !self.noticed.load(Ordering::SeqCst) {
            (self.on_end)(&RanksError::Ended(notice));
        }
    }

    /// Where a peer was. Its last heartbeat may be older than the step of this rank, and all ranks
    /// are in the same step.
    fn place_of(&self, peer: &Connected) -> Place {
        let (theirs, ours) = (lock(&peer.place).clone(), lock(&self.place).clone());
        if ours.step > theirs.step { ours } else { theirs }
    }

    /// How a peer was lost.
    fn how(&self, read: &io::Result<Option<Message>>) -> String {
        match read {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                format!("it sent no heartbeat for {} s", self.deadlines.silence.as_secs_f64())
            }
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => error.to_string(),
            _ => "its process ended".to_owned(),
        }
    }
}

/// A value that a panicking thread may have held: it is still whole.
fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
