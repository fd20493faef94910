//! Training a byte-level BPE tokenizer.

use std::path::Path;

use serde_json::json;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::files::{TOKENIZER_CONFIG, TOKENIZER_JSON};
use super::pieces::{TRAINED_PATTERN, piece_of_any};
use crate::{DataError, Document, Result};

/// The token that ends a document in tokenizers trained here.
const EOS_TOKEN: &str = "<|endoftext|>";
/// Text read at most: the trainer counts pairs in 32 bits, and more text changes no merge worth
/// having.
const MAX_TEXT_BYTES: u64 = 16 << 30;

/// How to train a tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainTokenizerOptions {
    /// Number of ids: 256 bytes, the end of document and merges. At least 257.
    pub vocab_size: usize,
    /// How often a pair must occur to be merged.
    pub min_frequency: u64,
}

/// Trains a byte-level BPE tokenizer on documents and writes `tokenizer.json` and
/// `tokenizer_config.json` into `directory`. Returns the number of ids, which is smaller than asked
/// for if there is too little text.
///
/// Text is split into words as Llama 3 does; any bytes can be encoded. Memory grows with the number
/// of different words, not with the text. The same documents give the same files, whatever the
/// number of threads (those of rayon's global pool). `progress` is told the bytes of text read so
/// far.
///
/// # Errors
/// [`DataError::Setting`] if `vocab_size` is below 257, the first error of `documents`,
/// [`DataError::NotUtf8`] for a document that is not, [`DataError::NoText`] if there is none, and
/// [`DataError::Exists`] or [`DataError::File`] if a file is there already or cannot be written.
pub fn train_tokenizer(
    documents: impl Iterator<Item = Result<Document>> + Send,
    directory: &Path,
    options: &TrainTokenizerOptions,
    mut progress: impl FnMut(u64) + Send,
) -> Result<usize> {
    if options.vocab_size < 257 {
        return Err(DataError::setting("vocab_size", "at least 257", options.vocab_size));
    }
    for name in [TOKENIZER_JSON, TOKENIZER_CONFIG] {
        let path = directory.join(name);
        if path.exists() {
            return Err(DataError::Exists { path });
        }
    }
    let failed = |error: tokenizers::Error| DataError::TrainTokenizer { cause: error.to_string() };
    let mut tokenizer = untrained().map_err(failed)?;
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(options.vocab_size)
        .min_frequency(options.min_frequency)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(EOS_TOKEN, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build()
        .into();
    let (mut bytes, mut failure) = (0, None);
    let texts = Texts { documents, rest: String::new(), failure: &mut failure };
    let texts = texts
        .inspect(|text| {
            bytes += text.len() as u64;
            progress(bytes);
        })
        .scan(0, |before, text| {
            *before += text.len() as u64;
            (*before <= MAX_TEXT_BYTES).then_some(text)
        });
    let trained = tokenizer.train(&mut trainer, texts).map(drop);
    if let Some(error) = failure {
        return Err(error);
    }
    trained.map_err(failed)?;
    if bytes == 0 {
        return Err(DataError::NoText);
    }
    write(&tokenizer, directory)?;
    Ok(tokenizer.get_vocab_size(true))
}

fn untrained() -> tokenizers::Result<tokenizers::Tokenizer> {
    let words = Split::new(
        SplitPattern::Regex(TRAINED_PATTERN.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )?;
    let bytes = ByteLevel::new(false, true, false);
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(Sequence::new(vec![words.into(), bytes.into()])))
        .with_decoder(Some(bytes))
        .with_post_processor(Some(bytes));
    Ok(tokenizer)
}

fn write(tokenizer: &tokenizers::Tokenizer, directory: &Path) -> Result<()> {
    ssa_files::create_directories(directory)?;
    let definition = tokenizer
        .to_string(true)
        .map_err(|error| DataError::TrainTokenizer { cause: error.to_string() })?;
    let config = json!({ "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS_TOKEN });
    ssa_files::write(&directory.join(TOKENIZER_CONFIG), format!("{config:#}\n"))?;
    Ok(ssa_files::write(&directory.join(TOKENIZER_JSON), definition)?)
}

/// The documents as texts of bounded length. Ends at the first error, which it leaves in `failure`:
/// the trainer's iterator cannot carry one.
struct Texts<'a, I> {
    documents: I,
    rest: String,
    failure: &'a mut Option<DataError>,
}

impl<I: Iterator<Item = Result<Document>>> Texts<'_, I> {
    fn next_document(&mut self) -> Option<String> {
        let document = self.documents.next()?.and_then(|document| {
            String::from_utf8(document.text).map_err(|_| DataError::NotUtf8 { name: document.name })
        });
        document.map_err(|error| *self.failure = Some(error)).ok()
    }
}

impl<I: Iterator<Item = Result<Document>>> Iterator for Texts<'_, I> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        while self.rest.is_empty() {
            if self.failure.is_some() {
                return None;
            }
            self.rest = self.next_document()?;
        }
        let piece = piece_of_any(&self.rest);
        let rest = self.rest.split_off(piece);
        Some(std::mem::replace(&mut self.rest, rest))
    }
}
