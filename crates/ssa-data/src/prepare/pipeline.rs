//! The threads of a preparation.

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

/// Bytes of records after which a batch ends: large enough that handing it over costs nothing,
/// small enough that all threads have work.
const BATCH_BYTES: usize = 1 << 18;
/// Bytes of records under way at least, and for each thread. A single record may be larger, and is
/// then alone under way.
const MIN_BYTES_UNDER_WAY: usize = 1 << 25;
const BYTES_UNDER_WAY_PER_THREAD: usize = 8 * BATCH_BYTES;

/// The tokens of consecutive records.
#[derive(Default)]
pub(super) struct EncodedBatch {
    pub(super) documents: Vec<EncodedDocument>,
    /// Their tokens as they are stored.
    pub(super) bytes: Vec<u8>,
    /// How far the files are read after these records.
    pub(super) read: u64,
    /// What had been read of the sources of these records, and of those read without any.
    pub(super) read_sums: ReadSums,
    /// What is wrong with the record that follows these.
    fault: Option<DataError>,
}

/// What has been read of sources, by their numbers.
type ReadSums = Vec<(usize, FileSum)>;

/// What became of one record.
pub(super) struct EncodedDocument {
    pub(super) position: Position,
    /// Number of its tokens: 0 if it has no text.
    pub(super) tokens: u32,
    pub(super) text_bytes: u64,
}

/// Records on their way to a worker, and where its answer is expected.
struct Task {
    records: Vec<(Position, Record)>,
    answer: Sender<EncodedBatch>,
    read: u64,
    read_sums: ReadSums,
}

/// A batch under way, in order.
struct Ticket {
    answer: Receiver<EncodedBatch>,
    bytes: usize,
}

/// Reads and tokenizes all records from `start` on, and gives them to `consume` in order. `read` is
/// what had been read of the source at `start`.
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
        scope.spawn(move || reader.read(start, read));
        for _ in 0..options.threads {
            scope.spawn(|| serve(&task_queue, tokenizer, &options.input, &budget));
        }
        // However this ends, the others must not wait for room any more.
        let _close = CloseOnDrop(&budget);
        ticket_queue.into_iter().try_for_each(|Ticket { answer, bytes }| {
            // No answer: a worker panicked, which the scope passes on.
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
                    // Whole shards made of what lies before the fault are kept.
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

    /// Reads a source from a record on; false if nobody wants more.
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
            // What follows the last shard is kept back till its source is known to be the same.
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

    /// Sends a batch, once there is room for it; false if nobody wants more.
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
        // The lock is held while waiting: the next worker in line waits for the lock instead of for
        // a task.
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

/// Encodes records up to the first that is faulty.
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

/// Appends the tokens of a record as they are stored, with one end of document; returns how many
/// they are, and the bytes of its text.
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
    // A chat template may have written the end already.
    if last != Some(tokenizer.eos()) {
        encode_tokens(&[tokenizer.eos()], token_type, bytes)?;
    }
    // Fewer than 2^31, as a document has fewer bytes.
    let tokens = ((bytes.len() - start) / token_type.bytes()) as u32;
    Ok((tokens, text.len() as u64))
}

/// Bounds the bytes under way from the reader to the consumer.
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

    /// Waits until there is room, or nothing else is under way; false if the budget is closed.
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
