//! From files to shards: multi-threaded, with bounded memory, resumable.
//!
//! ```text
//! reader thread   sources -> batches of undecoded records   (waits if too much is in flight)
//! worker threads  batch -> encoded tokens of its documents
//! caller          batches in order -> shards, manifest, progress
//! ```
//!
//! The output depends only on the inputs, the tokenizer and the settings, not on the number of
//! threads or on interruptions. A document is never split, and a shard ends with the first document
//! that fills it. The file `preparation.json`, rewritten after each shard, records where to resume
//! and the checksums of what was read: a source that has changed since is an error.
//!
//! Memory: the records in flight (32 MiB, and 2 MiB per thread) with their tokens, or one larger
//! document. A document of N bytes needs about 2 N to read, N more for the next one, and 2 N
//! (vocabularies up to 65,536) or 4 N as tokens of one byte each. A tokenizer needs about a hundred
//! times the size of the largest piece that it encodes, which is at most 16 MiB: most tokenizers
//! encode words, others whole documents.

mod output;
mod pipeline;
mod state;

use std::path::PathBuf;

use ssa_text::Tokenizer;

use crate::input::{InputOptions, Source, find_sources};
use crate::shard::{Manifest, Part, PrepareSettings, SourceSum};
use crate::{DataError, Result};
use state::Position;

/// Default number of tokens per shard: 256 or 512 MB.
pub const SHARD_TOKENS: u64 = 1 << 27;

/// Options for preparing a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepareOptions {
    /// How the inputs are read.
    pub input: InputOptions,
    /// The output directory.
    pub output: PathBuf,
    /// Number of tokens after which a shard ends with the current document, at least 1.
    pub shard_tokens: u64,
    /// This machine's part of the work.
    pub part: Part,
    /// Number of tokenizer threads, at least 1.
    pub threads: usize,
}

/// The progress of a preparation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrepareProgress {
    /// Stored bytes of the input files whose documents are written, including earlier runs.
    pub bytes: u64,
    /// Stored bytes of all input files whose size is known.
    pub total_bytes: u64,
    /// Bytes done by earlier runs.
    pub resumed_bytes: u64,
    /// Documents written.
    pub documents: u64,
    /// Tokens written.
    pub tokens: u64,
    /// Complete shards.
    pub shards: usize,
}

/// The result of a preparation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The description of the shards.
    pub manifest: Manifest,
    /// Number of shards from earlier runs: all of them if there was nothing left to do.
    pub shards_before: usize,
    /// Files skipped in directories.
    pub skipped: Vec<PathBuf>,
}

/// Tokenizes the documents of `inputs` (see [`find_sources`]) into shards in `options.output`.
///
/// Every document ends with the tokenizer's end-of-document token. Documents without text are
/// counted and skipped. With several parts, each machine takes whole files if there are at least as
/// many files as parts, else every n-th document. All parts may write to one directory, or be
/// copied together later. The directory must be new, or empty except for other parts.
///
/// The same call resumes an interrupted run: it continues after the last complete shard and gives
/// the same files as an uninterrupted run. Inputs already read must not have changed, which is
/// checked by reading them again. A run that fails at an invalid document also keeps its complete
/// shards.
///
/// # Errors
/// [`DataError::Setting`] for a setting out of range; errors of [`find_sources`],
/// [`Source::records`] and [`Record::into_text`](crate::Record::into_text); [`DataError::Input`]
/// for a document that the tokenizer refuses; [`DataError::Amount`] if there is no text;
/// [`DataError::Output`] if the directory holds other files, or a corpus started with different
/// settings; [`DataError::Corpus`] if another process writes to it; [`DataError::File`].
pub fn prepare(
    inputs: &[PathBuf],
    tokenizer: &Tokenizer,
    options: &PrepareOptions,
    progress: &mut dyn FnMut(&PrepareProgress),
) -> Result<Prepared> {
    check(options)?;
    let mut found = find_sources(inputs, &options.input)?;
    // The output of an earlier run can be inside an input directory.
    found.sources.retain(|source| !source.is_below(&options.output));
    let work = Work::deal(found.sources, options.part);
    let begun = state::begin(&work, tokenizer, options)?;
    let shards_before = begun.preparation.manifest.shards.len();
    let manifest = if begun.complete {
        begun.preparation.manifest
    } else {
        output::write(&work, begun.preparation, tokenizer, options, progress)?
    };
    Ok(Prepared { manifest, shards_before, skipped: found.skipped })
}

fn check(options: &PrepareOptions) -> Result<()> {
    if options.threads == 0 {
        return Err(DataError::setting("threads", "at least 1", 0));
    }
    if options.shard_tokens == 0 {
        return Err(DataError::setting("shard_tokens", "at least 1", 0));
    }
    // A token covers at least one byte, so document lengths fit the 31 bits of an index.
    if options.input.max_document_bytes >= i32::MAX as u64 {
        let actual = options.input.max_document_bytes;
        return Err(DataError::setting("max_document_bytes", "below 2147483647", actual));
    }
    Part::new(options.part.index, options.part.count).map(drop)
}

/// The sources of one machine, and which of their records it takes.
#[derive(Debug)]
struct Work {
    sources: Vec<Source>,
    /// `None`: every record. Otherwise every n-th record, with an offset by source number.
    every: Option<Part>,
}

impl Work {
    fn deal(mut sources: Vec<Source>, part: Part) -> Self {
        if sources.len() < part.count {
            return Self { sources, every: Some(part) };
        }
        let mut number = 0;
        sources.retain(|_| {
            number += 1;
            (number - 1) % part.count == part.index - 1
        });
        Self { sources, every: None }
    }

    fn takes(&self, Position { source, record }: Position) -> bool {
        self.every.is_none_or(|part| {
            (source as u64 + record) % part.count as u64 == part.index as u64 - 1
        })
    }

    fn sums(&self) -> Vec<SourceSum> {
        let sum = |source: &Source| SourceSum {
            name: source.name().to_owned(),
            bytes: source.bytes(),
            sha256: None,
            documents: 0,
            empty_documents: 0,
            text_bytes: 0,
            tokens: 0,
        };
        self.sources.iter().map(sum).collect()
    }

    /// Total bytes of the sources before `source`.
    fn bytes_before(&self, source: usize) -> u64 {
        self.sources[..source].iter().filter_map(Source::bytes).sum()
    }
}

impl PrepareSettings {
    fn of(options: &PrepareOptions) -> Self {
        let InputOptions { format, text_field, conversations_field, .. } = options.input.clone();
        let PrepareOptions { part, shard_tokens, .. } = *options;
        Self { part, format, text_field, conversations_field, shard_tokens }
    }
}

#[cfg(test)]
pub(crate) mod tests;
