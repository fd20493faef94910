//! From files to shards: many threads, bounded memory, resumable.
//!
//! ```text
//! reader thread   sources -> batches of undecoded records   (waits when too much is under way)
//! worker threads  batch -> tokens of its documents, as stored
//! caller          batches in order -> shards, manifest, progress
//! ```
//!
//! The files depend on the inputs, the tokenizer and the settings alone, not on the number of
//! threads or on interruptions: a document is never divided, a shard ends with the first document
//! that fills it, and the file `preparation.json`, which is written anew after each shard, says
//! where to continue and what had been read until then: a source that has changed since is an
//! error.
//!
//! Memory: the records under way (32 MiB, and 2 MiB for each thread) with their tokens, or one
//! larger document alone. A document of N bytes takes about 2 N to read, N more for the one read
//! ahead, and 2 N (vocabularies up to 65,536) or 4 N as tokens of one byte each. A tokenizer needs
//! about a hundred times the largest piece that it has to encode at once, which is at most 16 MiB:
//! most tokenizers encode words, others whole documents.

mod output;
mod pipeline;
mod state;

use std::path::PathBuf;

use ssa_text::Tokenizer;

use crate::input::{InputOptions, Source, find_sources};
use crate::shard::{Manifest, Part, PrepareSettings, SourceSum};
use crate::{DataError, Result};
use state::Position;

/// Tokens of a shard unless asked for otherwise: 256 or 512 MB.
pub const SHARD_TOKENS: u64 = 1 << 27;

/// How to prepare a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepareOptions {
    /// How the inputs are read.
    pub input: InputOptions,
    /// The directory for the shards.
    pub output: PathBuf,
    /// Tokens after which a shard ends with the document, at least 1.
    pub shard_tokens: u64,
    /// This machine's part of the work.
    pub part: Part,
    /// Threads that tokenize, at least 1.
    pub threads: usize,
}

/// How far a preparation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrepareProgress {
    /// Bytes of the files, as they are stored, whose documents are written, those of earlier runs
    /// included.
    pub bytes: u64,
    /// Bytes of all files, as far as their sizes are known.
    pub total_bytes: u64,
    /// Bytes that earlier runs had done.
    pub resumed_bytes: u64,
    /// Documents written.
    pub documents: u64,
    /// Tokens written.
    pub tokens: u64,
    /// Whole shards.
    pub shards: usize,
}

/// What a preparation has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The description of the shards.
    pub manifest: Manifest,
    /// Shards that earlier runs had made: all of them if there was nothing left to do.
    pub shards_before: usize,
    /// Files skipped below directories.
    pub skipped: Vec<PathBuf>,
}

/// Tokenizes the documents of `inputs` (see [`find_sources`]) into shards in `options.output`.
///
/// Every document ends with the tokenizer's end-of-document token. Documents without text are
/// counted and left out. With several parts, each machine takes whole files if there are at least
/// as many files as parts, else every n-th document; all may write into one directory, or be copied
/// together. The directory has to be new or empty but for them.
///
/// An interrupted run is resumed by the same call: it continues after the last whole shard and
/// gives the same files as one that was never interrupted. What had been read before must not have
/// changed, which is found out by reading it once more. A run that fails at a bad document keeps
/// its whole shards, too.
///
/// # Errors
/// [`DataError::Setting`] for a setting out of its range; what [`find_sources`],
/// [`Source::records`] and [`Record::into_text`](crate::Record::into_text) report;
/// [`DataError::Input`] for a document that the tokenizer refuses; [`DataError::Amount`] if there
/// is no text; [`DataError::Output`] if the directory holds other files, or a corpus that was
/// started otherwise; [`DataError::Corpus`] if another process writes there; [`DataError::File`].
pub fn prepare(
    inputs: &[PathBuf],
    tokenizer: &Tokenizer,
    options: &PrepareOptions,
    progress: &mut dyn FnMut(&PrepareProgress),
) -> Result<Prepared> {
    check(options)?;
    let mut found = find_sources(inputs, &options.input)?;
    // The output of an earlier run can lie below an input.
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
    // A token covers at least one byte, so that lengths of documents fit the 31 bits of an index.
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
    /// None: every record. Else those whose number, counted on from the number of the source, is
    /// the part's turn.
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

    /// Bytes of the sources before one.
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
