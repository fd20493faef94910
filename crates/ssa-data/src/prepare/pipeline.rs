//! The threads of a preparation.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use ssa_text::{Encoder, TextError, Tokenizer};

use super::state::Position;
use super::{PrepareOptions, Work};
use crate::file_sum::FileSum;
use crate::input::{InputOptions, ReadSum, Record};
use crate::shard::{TokenType, encode_tokens};
use crate::{DataError, Result};

/// Bytes of records after which a batch ends: large enough to amortize the hand-over, small enough
/// to keep all threads busy.
const BATCH_BYTES: usize = 1 << 18;
/// Bytes of records in flight: a fixed part, and a part per thread. A larger record is in flight
/// alone.
const MIN_BYTES_UNDER_WAY: usize = 1 << 25;
const BYTES_UNDER_WAY_PER_THREAD: usize = 8 * BATCH_BYTES;

/// The tokens of consecutive records.
#[derive(Default)]
pub(super) struct EncodedBatch {
    pub(super) documents: Vec<EncodedDocument>,
    /// Their encoded tokens.
    pub(super) bytes: Vec<u8>,
    /// Bytes of the files read after these records.
    pub(super) read: u64,
    /// Checksums of what was read of the sources of these records, and of sources without records.
    pub(super) read_sums: ReadSums,
    /// The error of the next record, if it is invalid.
    fault: Option<DataError>,
}

/// Checksums of what was read, by source number.
type ReadSums = Vec<(usize, FileSum)>;

/// The result of one record.
pub(super) struct EncodedDocument {
    pub(super) position: Position,
    /// Number of tokens; 0 without text.
    pub(super) tokens: u32,
    pub(super) text_bytes: u64,
}

/// Records for a worker, and the channel for its result.
struct Task {
    records: Vec<(Position, Record)>,
    answer: Sender<EncodedBatch>,
    read: u64,
    read_sums: ReadSums,
}

/// A batch in flight, in order.
struct Ticket {
    answer: Receiver<EncodedBatch>,
    bytes: usize,
}

/// Reads and tokenizes all records from `start` on, and passes them to `consume` in order. `read`
/// is the checksum of the part of the source before `start`.
pub(super) fn run(
    work: &Work,
    start: Position,
    read: Option<FileSum>,
    tokenizer: &Tokenizer,
    options: &PrepareOptions,
    mut consume: impl FnMut(EncodedBatch) -> Result<()>,
) -> Result<()> {
    let limit = MIN_BYTES_UNDER_WAY.max(options.threads * BYTES_UNDER_WAY_PER_THREAD);
    let budget = Budget::new(limit);
    let (tasks, task_queue) = mpsc::channel();
    let (tickets, ticket_queue) = mpsc::channel::<Ticket>();
    let task_queue = Mutex::new(task_queue);
    thread::scope(|scope| {
        let reader = Reader { work, options: &options.input, budget: &budget, tasks, tickets };
        // Unblocks the reader on every exit path.
        let _close = CloseOnDrop(&budget);
        let refused = |error: io::Error| DataError::Thread { cause: error.to_string() };
        let read = move || reader.read(start, read);
        thread::Builder::new().spawn_scoped(scope, read).map_err(refused)?;
        for workers in 0..options.threads {
            let work = || serve(&task_queue, tokenizer, &options.input, &budget);
            match thread::Builder::new().spawn_scoped(scope, work) {
                // Fewer threads give the same tokens.
                Err(error) if workers == 0 => return Err(refused(error)),
                Err(_) => break,
                Ok(_) => {}
            }
        }
        ticket_queue.into_iter().try_for_each(|Ticket { answer, bytes }| {
            // No result: a worker panicked, which the scope propagates.
            let mut batch = answer.recv().unwrap_or_default();
            let fault = batch.fault.take();
            consume(batch)?;
            budget.give_back(bytes);
            fault.map_or(Ok(()), Err)
        })
    })
}

/// The reader thread.
struct Reader<'a> {
    work: &'a Work,
    options: &'a InputOptions,
    budget: &'a Budget,
    tasks: Sender<Task>,
    tickets: Sender<Ticket>,
}

impl Reader<'_> {
    fn read(&self, start: Position, before: Option<FileSum>) {
        let read = Arc::new(AtomicU64::new(self.work.bytes_before(start.source)));
        let mut batch = Batch::default();
        let mut before = before;
        for number in start.source..self.work.sources.len() {
            let first = if number == start.source { start.record } else { 0 };
            let sum = ReadSum::new(Arc::clone(&read), before.take());
            match self.read_source(number, first, &sum, &mut batch) {
                Ok(true) => {}
                // The consumer has stopped.
                Ok(false) => return,
                Err(error) => {
                    // Complete shards before the error are kept.
                    if self.send(&mut batch, &read) {
                        let (answer, ticket) = mpsc::channel();
                        let read = read.load(Ordering::Relaxed);
                        let fault = Some(error);
                        let _ = answer.send(EncodedBatch { read, fault, ..Default::default() });
                        let _ = self.tickets.send(Ticket { answer: ticket, bytes: 0 });
                    }
                    return;
                }
            }
        }
        self.send(&mut batch, &read);
    }

    /// Reads a source starting at a record; returns false if the consumer has stopped.
    fn read_source(
        &self,
        number: usize,
        first: u64,
        sum: &Arc<ReadSum>,
        batch: &mut Batch,
    ) -> Result<bool> {
        let source = &self.work.sources[number];
        for record in source.summed_records(self.options, Arc::clone(sum))? {
            let record = record?;
            let position = Position { source: number, record: record.number() };
            if position.record < first || !self.work.takes(position) {
                continue;
            }
            batch.bytes += record.bytes();
            batch.records.push((position, record));
            // Documents after the last shard are held back until the source is verified.
            if batch.bytes >= BATCH_BYTES && sum.is_verified() {
                batch.note(number, source.can_change().then(|| sum.so_far()));
                if !self.send(batch, sum.total()) {
                    return Ok(false);
                }
            }
        }
        batch.note(number, source.can_change().then(|| sum.so_far()));
        Ok(true)
    }

    /// Sends a batch once there is room; returns false if the consumer has stopped.
    fn send(&self, batch: &mut Batch, read: &AtomicU64) -> bool {
        let Batch { records, bytes, read_sums } = std::mem::take(batch);
        if records.is_empty() && read_sums.is_empty() {
            return true;
        }
        let (answer, ticket) = mpsc::channel();
        let task = Task { records, answer, read: read.load(Ordering::Relaxed), read_sums };
        self.budget.take(bytes)
            && self.tickets.send(Ticket { answer: ticket, bytes }).is_ok()
            && self.tasks.send(task).is_ok()
    }
}

#[derive(Default)]
struct Batch {
    records: Vec<(Position, Record)>,
    bytes: usize,
    read_sums: ReadSums,
}

impl Batch {
    fn note(&mut self, source: usize, sum: Option<FileSum>) {
        self.read_sums.retain(|(number, _)| *number != source);
        self.read_sums.extend(sum.map(|sum| (source, sum)));
    }
}

/// A worker thread.
fn serve(
    tasks: &Mutex<Receiver<Task>>,
    tokenizer: &Tokenizer,
    options: &InputOptions,
    budget: &Budget,
) {
    let mut encoder = tokenizer.encoder();
    loop {
        // The lock is held while waiting: other workers wait for the lock instead of a task.
        let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Task { records, answer, read, read_sums }) = task else {
            return;
        };
        if budget.is_closed() {
            return;
        }
        let batch = EncodedBatch { read, read_sums, ..Default::default() };
        let _ = answer.send(encode(records, &mut encoder, options, batch));
    }
}

/// Encodes records up to the first invalid one.
fn encode(
    records: Vec<(Position, Record)>,
    encoder: &mut Encoder<'_>,
    options: &InputOptions,
    mut batch: EncodedBatch,
) -> EncodedBatch {
    batch.documents.reserve(records.len());
    for (position, record) in records {
        match append(record, encoder, options, &mut batch.bytes) {
            Ok((tokens, text_bytes)) => {
                batch.documents.push(EncodedDocument { position, tokens, text_bytes });
            }
            Err(error) => {
                batch.fault = Some(error);
                break;
            }
        }
    }
    batch
}

/// Appends the encoded tokens of a record, with one end-of-document token; returns the number of
/// tokens and the bytes of text.
fn append(
    record: Record,
    encoder: &mut Encoder<'_>,
    options: &InputOptions,
    bytes: &mut Vec<u8>,
) -> Result<(u32, u64)> {
    let tokenizer = encoder.tokenizer();
    let token_type = TokenType::for_vocabulary(tokenizer.vocab_size());
    let name = record.describe();
    let text = record.into_text(options, tokenizer)?;
    if text.is_empty() {
        return Ok((0, 0));
    }
    if matches!(tokenizer, Tokenizer::Bytes) {
        bytes.reserve((text.len() + 1) * token_type.bytes());
    }
    let start = bytes.len();
    let mut last = None;
    encoder
        .encode(&text, |ids| {
            last = ids.last().copied().or(last);
            encode_tokens(ids, token_type, bytes)
        })
        .map_err(|error| match error {
            DataError::Text(error @ (TextError::NotUtf8 { .. } | TextError::TooLong { .. })) => {
                DataError::input(name, error.to_string(), "")
            }
            error => error,
        })?;
    // A chat template may already have added the end.
    if last != Some(tokenizer.eos()) {
        encode_tokens(&[tokenizer.eos()], token_type, bytes)?;
    }
    // Fewer than 2^31, like the bytes of a document.
    let tokens = ((bytes.len() - start) / token_type.bytes()) as u32;
    Ok((tokens, text.len() as u64))
}

/// Limits the bytes in flight between the reader and the consumer.
struct Budget {
    state: Mutex<BudgetState>,
    changed: Condvar,
    limit: usize,
}

#[derive(Default)]
struct BudgetState {
    used: usize,
    closed: bool,
}

impl Budget {
    fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), limit }
    }

    /// Waits until there is room or nothing else is in flight; returns false if the budget is
    /// closed.
    fn take(&self, bytes: usize) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |state: &mut BudgetState| {
            !state.closed && state.used > 0 && state.used.saturating_add(bytes) > self.limit
        };
        let mut state =
            self.changed.wait_while(state, full).unwrap_or_else(PoisonError::into_inner);
        state.used += bytes;
        !state.closed
    }

    fn give_back(&self, bytes: usize) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).used -= bytes;
        self.changed.notify_one();
    }

    fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed
    }
}

struct CloseOnDrop<'a>(&'a Budget);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
