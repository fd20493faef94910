//! Training a byte-level BPE tokenizer.

use std::path::Path;

use serde_json::json;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use crate::cuts::{MAX_PIECE_BYTES, TRAINED_PATTERN, piece_at_space};
use crate::document::Document;
use crate::tokenizer::{TOKENIZER_CONFIG, TOKENIZER_JSON};
use crate::{Result, TextError};

/// The end-of-document token of tokenizers trained here.
const EOS_TOKEN: &str = "<|endoftext|>";
/// Maximum bytes of text: the trainer counts pairs in 32 bits, and more text does not improve the
/// merges.
const MAX_TEXT_BYTES: u64 = 16 << 30;
/// Bytes per text passed to the trainer.
const TEXT_BYTES: usize = 1 << 20;

/// Options for training a tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainTokenizerOptions {
    /// Number of ids: 256 bytes, the end of document and merges. At least 257.
    pub vocab_size: usize,
    /// Minimum number of occurrences of a pair to be merged.
    pub min_frequency: u64,
}

/// Trains a byte-level BPE tokenizer on documents and writes `tokenizer.json` and
/// `tokenizer_config.json` into `directory`. Returns the number of ids, which is smaller than
/// requested if there is too little text.
///
/// Text is split into words as in Llama 3; any bytes can be encoded. Memory grows with the number
/// of distinct words, not with the text. The same documents give the same files for any number of
/// threads (of rayon's global pool). Calls `progress` with the bytes of text read so far.
///
/// # Errors
/// [`TextError::Setting`] if `vocab_size` is below 257, the first error of `documents`,
/// [`TextError::NotUtf8`] for a document that is not UTF-8, [`TextError::NoText`] if there is no
/// text, and [`TextError::Exists`] or [`TextError::File`] if a file already exists or cannot be
/// written.
pub fn train_tokenizer<E: From<TextError> + Send>(
    documents: impl Iterator<Item = Result<Document, E>> + Send,
    directory: &Path,
    options: &TrainTokenizerOptions,
    mut progress: impl FnMut(u64) + Send,
) -> Result<usize, E> {
    if options.vocab_size < 257 {
        return Err(TextError::setting("vocab_size", "at least 257", options.vocab_size).into());
    }
    for name in [TOKENIZER_JSON, TOKENIZER_CONFIG] {
        let path = directory.join(name);
        if path.exists() {
            return Err(TextError::Exists { path }.into());
        }
    }
    let failed = |error: tokenizers::Error| TextError::Train { cause: error.to_string() };
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
    let texts =
        Texts { documents, name: String::new(), text: String::new(), at: 0, failure: &mut failure };
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
        return Err(TextError::NoText.into());
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
    let definition =
        tokenizer.to_string(true).map_err(|error| TextError::Train { cause: error.to_string() })?;
    let config = json!({ "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS_TOKEN });
    ssa_files::write(&directory.join(TOKENIZER_CONFIG), format!("{config:#}\n"))?;
    Ok(ssa_files::write(&directory.join(TOKENIZER_JSON), definition)?)
}

/// An iterator over texts of about [`TEXT_BYTES`], cut where the new tokenizer never joins
/// anything. Ends at the first error and stores it in `failure`, because the trainer's iterator
/// cannot return errors.
struct Texts<'a, I, E> {
    documents: I,
    name: String,
    text: String,
    /// Bytes of `text` already used.
    at: usize,
    failure: &'a mut Option<E>,
}

impl<I, E> Texts<'_, I, E>
where
    I: Iterator<Item = Result<Document, E>>,
    E: From<TextError>,
{
    /// Loads the next document; returns false at the end.
    fn next_document(&mut self) -> Result<bool, E> {
        let Some(document) = self.documents.next() else { return Ok(false) };
        let Document { name, text } = document?;
        (self.name, self.at) = (name, 0);
        self.text = String::from_utf8(text).map_err(|error| {
            let position = error.utf8_error().valid_up_to();
            TextError::NotUtf8 { name: Some(self.name.clone()), position }
        })?;
        Ok(true)
    }

    fn next_text(&mut self) -> Result<Option<String>, E> {
        while self.at == self.text.len() {
            if !self.next_document()? {
                return Ok(None);
            }
        }
        let start = self.at;
        while self.at < self.text.len() && self.at - start < TEXT_BYTES {
            let bytes = piece_at_space(&self.text[self.at..]);
            if bytes > MAX_PIECE_BYTES {
                let name = Some(self.name.clone());
                return Err(TextError::TooLong { name, bytes, limit: MAX_PIECE_BYTES }.into());
            }
            self.at += bytes;
        }
        Ok(Some(self.text[start..self.at].to_owned()))
    }
}

impl<I, E> Iterator for Texts<'_, I, E>
where
    I: Iterator<Item = Result<Document, E>>,
    E: From<TextError>,
{
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.failure.is_some() {
            return None;
        }
        self.next_text().unwrap_or_else(|error| {
            *self.failure = Some(error);
            None
        })
    }
}
