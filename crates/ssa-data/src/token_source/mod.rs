//! The tokens of documents, in memory or in shards.

use std::ops::Range;

use rand::Rng;

use crate::random::{Purpose, generator, mix};
use crate::shard::{Corpus, ShardReader};
use crate::{DataError, Result};

/// Documents as tokens, numbered from 0, each with a final end-of-document token.
///
/// The numbering depends on the content (documents in memory) or on the names of the shards, never
/// on the order of files in a file system or of arguments.
#[derive(Debug)]
pub enum TokenSource {
    /// All tokens in memory.
    Memory(TokenTable),
    /// Shards on disk: tokens are read on request.
    Shards(ShardSource),
}

/// Documents in memory.
#[derive(Debug)]
pub struct TokenTable {
    documents: Vec<Vec<u32>>,
    eos: u32,
}

/// Documents in shards.
#[derive(Debug)]
pub struct ShardSource {
    corpus: Corpus,
    vocab_size: usize,
    eos: u32,
}

/// The document numbers of a source in two parts, each ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSplit {
    /// The training documents; at least one.
    pub train: Vec<u32>,
    /// The held-out documents; at least one.
    pub held_out: Vec<u32>,
}

impl TokenSource {
    /// Creates a source from documents without their end-of-document tokens, which are appended.
    /// Documents without tokens are skipped.
    pub fn in_memory(documents: &[Vec<u32>], eos: u32) -> Self {
        let with_text = documents.iter().filter(|ids| !ids.is_empty());
        let mut documents: Vec<Vec<u32>> =
            with_text.map(|ids| ids.iter().copied().chain([eos]).collect()).collect();
        // Equal documents are interchangeable, so this numbering depends only on the content.
        documents.sort_unstable();
        Self::Memory(TokenTable { documents, eos })
    }

    /// Creates a source from shards, whose tokens must be below `vocab_size`. `eos` pads rows;
    /// documents are used as stored, with or without their end-of-document tokens.
    pub fn shards(corpus: Corpus, vocab_size: usize, eos: u32) -> Self {
        Self::Shards(ShardSource { corpus, vocab_size, eos })
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        match self {
            Self::Memory(table) => table.documents.len(),
            Self::Shards(source) => source.corpus.documents(),
        }
    }

    /// Number of tokens of a document, including its end.
    ///
    /// # Panics
    /// If there is no such document, as for a slice.
    pub fn document_tokens(&self, document: u32) -> usize {
        match self {
            Self::Memory(table) => table.documents[document as usize].len(),
            Self::Shards(source) => source.corpus.document_tokens(document as usize),
        }
    }

    /// The end-of-document token.
    pub fn eos(&self) -> u32 {
        match self {
            Self::Memory(table) => table.eos,
            Self::Shards(source) => source.eos,
        }
    }

    /// The numbers of all documents.
    ///
    /// # Errors
    /// [`DataError::Amount`] if there are 2^32 or more.
    pub fn all_documents(&self) -> Result<Vec<u32>> {
        match u32::try_from(self.documents()) {
            Ok(count) => Ok((0..count).collect()),
            Err(_) => Err(self.too_large(format!(
                "it has {} documents, but the limit is 2^32 - 1",
                self.documents()
            ))),
        }
    }

    pub(crate) fn too_large(&self, cause: String) -> DataError {
        let hint = "split the corpus into several, which `data.corpora` mixes";
        DataError::amount(format!("{}: {cause}", self.name()), hint)
    }

    /// Bytes of text of some documents, for shards that record them.
    pub fn text_bytes(&self, documents: &[u32]) -> Option<u64> {
        let Self::Shards(source) = self else { return None };
        documents.iter().map(|&document| source.corpus.text_bytes(document as usize)).sum()
    }

    /// The name of the source in messages.
    fn name(&self) -> String {
        match self {
            Self::Memory(_) => "the text".to_owned(),
            Self::Shards(source) => source.corpus.path().display().to_string(),
        }
    }

    /// Appends a part of a document to `ids`.
    ///
    /// # Errors
    /// [`DataError::Corpus`] names the file if a token is outside the vocabulary, or the file was
    /// truncated.
    ///
    /// # Panics
    /// If there is no such document or part, as for a slice.
    pub(crate) fn read(&self, document: u32, part: Range<usize>, ids: &mut Vec<u32>) -> Result<()> {
        match self {
            Self::Memory(table) => {
                ids.extend_from_slice(&table.documents[document as usize][part]);
                Ok(())
            }
            Self::Shards(source) => source.read(document as usize, part, ids),
        }
    }

    /// Holds out whole documents, each with probability `fraction`, decided by a hash of the seed,
    /// the name of its shard and its number in the shard. A document therefore stays on its side
    /// when shards are added or moved.
    ///
    /// At least one document stays on each side: if the hashes hold out none or all, the document
    /// with the closest hash moves.
    ///
    /// # Errors
    /// [`DataError::Setting`] if the fraction is not strictly between 0 and 1;
    /// [`DataError::Amount`] for fewer than two documents.
    pub fn split(&self, fraction: f64, seed: u64) -> Result<DocumentSplit> {
        if !(fraction > 0.0 && fraction < 1.0) {
            let expected = "a number between 0 and 1, both excluded";
            return Err(DataError::setting("held_out_fraction", expected, fraction));
        }
        let all = self.all_documents()?;
        if all.len() < 2 {
            let cause =
                format!("{}: cannot hold out a document: there are {}", self.name(), all.len());
            let hint = "add documents, or name other text to evaluate on (data.valid_corpora)";
            return Err(DataError::amount(cause, hint));
        }
        let hashes = self.hashes(seed);
        let extreme = |largest: bool| {
            let keyed = (0_u32..).zip(&hashes).map(|(document, &hash)| (hash, document));
            if largest { keyed.max() } else { keyed.min() }
        };
        let (least, most) = (extreme(false), extreme(true));
        let below = (fraction * 2_f64.powi(64)) as u64;
        let holds = |&document: &u32| {
            let key = Some((hashes[document as usize], document));
            key == least || (hashes[document as usize] < below && key != most)
        };
        let (held_out, train) = all.into_iter().partition(holds);
        Ok(DocumentSplit { train, held_out })
    }

    /// A hash of each document: of its tokens in memory, or of its shard name and number.
    fn hashes(&self, seed: u64) -> Vec<u64> {
        let key = generator(seed, Purpose::HeldOut, 1).next_u64();
        match self {
            Self::Memory(table) => table
                .documents
                .iter()
                .map(|ids| hash(key, ids.iter().map(|&id| u64::from(id))))
                .collect(),
            Self::Shards(source) => {
                source.corpus.shards().iter().flat_map(|shard| hashes(key, shard)).collect()
            }
        }
    }
}

impl ShardSource {
    fn read(&self, document: usize, part: Range<usize>, ids: &mut Vec<u32>) -> Result<()> {
        let start = ids.len();
        let (shard, number) = self.corpus.shard_of(document);
        shard.read(number, part, ids)?;
        match ids[start..].iter().find(|&&id| id as usize >= self.vocab_size) {
            None => Ok(()),
            Some(id) => {
                let cause = format!(
                    "it holds token {id}, but its tokenizer has a vocabulary of {}: the file is \
                     corrupt, or belongs to another tokenizer",
                    self.vocab_size
                );
                Err(DataError::damaged_shard(shard.path(), cause))
            }
        }
    }
}

/// Hashes of the documents of a shard, from its file name without directories and the document
/// numbers.
fn hashes(key: u64, shard: &ShardReader) -> impl Iterator<Item = u64> + use<> {
    let name = shard.path().file_name().map_or(&[][..], |name| name.as_encoded_bytes());
    let name = hash(key, name.iter().map(|&byte| u64::from(byte)));
    (0..shard.documents() as u64).map(move |number| hash(name, [number]))
}

fn hash(key: u64, numbers: impl IntoIterator<Item = u64>) -> u64 {
    // The odd constant prevents a hash of 0 from absorbing zeros.
    numbers
        .into_iter()
        .fold(key, |hash, number| mix((hash ^ mix(number)).wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

#[cfg(test)]
mod tests;
