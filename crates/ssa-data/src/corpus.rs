//! What is known about a corpus of shards: its tokenizer, and through it the text.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::permutation::Permutation;
use crate::random::Purpose;
use crate::tokenizer::{CHAT_TEMPLATE, TOKENIZER_CONFIG, TOKENIZER_JSON};
use crate::{ByteTokenizer, DataError, Document, Manifest, Result, TokenSource, Tokenizer};

/// The files that make up a tokenizer, of which all but the first are optional.
pub const TOKENIZER_FILES: [&str; 4] =
    [TOKENIZER_JSON, TOKENIZER_CONFIG, "special_tokens_map.json", CHAT_TEMPLATE];

/// The tokenizer that a corpus of shards comes with: the one of its manifest, or a `tokenizer.json`
/// beside it. None for a corpus that another program wrote.
///
/// # Errors
/// As [`Manifest::read`] and [`Manifest::load_tokenizer`].
pub fn corpus_tokenizer(path: &Path) -> Result<Option<Tokenizer>> {
    if let Some(manifest) = Manifest::read(path)? {
        return manifest.load_tokenizer(path).map(Some);
    }
    path.join(TOKENIZER_JSON).is_file().then(|| Tokenizer::load(path, None)).transpose()
}

impl TokenSource {
    /// Bytes of text for every target token of some documents, measured on as many of them as have
    /// `limit` tokens: the ones that [`pack_documents`](crate::pack_documents) with a seed of 0
    /// puts first.
    ///
    /// # Errors
    /// [`DataError::DamagedShard`] or [`DataError::UnknownToken`] for a token that is not in the
    /// vocabulary.
    pub fn bytes_per_target(
        &self,
        documents: &[u32],
        tokenizer: &Tokenizer,
        limit: usize,
    ) -> Result<f64> {
        let order = Permutation::new(documents.len() as u64, 0, Purpose::DocumentOrder, 0, 0);
        let (mut bytes, mut targets, mut ids) = (0, 0, Vec::new());
        for position in 0..documents.len() as u64 {
            if targets >= limit {
                break;
            }
            let document = documents[order.get(position) as usize];
            ids.clear();
            self.read(document, 0..self.document_tokens(document).min(limit), &mut ids)?;
            targets += ids.len().saturating_sub(1);
            ids.pop_if(|id| *id == self.eos());
            bytes += match tokenizer {
                Tokenizer::Bytes => ByteTokenizer.decode(&ids)?.len(),
                Tokenizer::Hf(_) => tokenizer.decode(&ids)?.len(),
            };
        }
        Ok(if targets == 0 { 0.0 } else { bytes as f64 / targets as f64 })
    }
}

impl Tokenizer {
    /// The ids of each document, in order, without the id that ends it.
    ///
    /// # Errors
    /// As [`Encoder::append`](crate::Encoder::append).
    pub fn encode_documents(&self, documents: &[Document]) -> Result<Vec<Vec<u32>>> {
        if matches!(self, Self::Bytes) {
            return Ok(ByteTokenizer.encode_documents(documents));
        }
        let mut encoder = self.encoder();
        let encode = |document: &Document| {
            let mut ids = Vec::new();
            encoder.append(&document.text, &mut ids).map(|()| ids)
        };
        documents.iter().map(encode).collect()
    }

    /// Copies the files of the tokenizer into a directory, where [`Tokenizer::load`] finds them
    /// again, and returns their names; each file is replaced as a whole. The tokenizer `bytes` has
    /// no files.
    ///
    /// # Errors
    /// [`DataError::Unreadable`] or [`DataError::File`] names the file.
    pub fn copy_to(&self, directory: &Path) -> Result<Vec<&'static str>> {
        let Self::Hf(tokenizer) = self else { return Ok(vec![]) };
        ssa_files::create_directories(directory)?;
        let mut copied = Vec::new();
        for name in TOKENIZER_FILES {
            let file = if name == TOKENIZER_JSON {
                tokenizer.path().to_owned()
            } else {
                tokenizer.path().with_file_name(name)
            };
            let bytes = match fs::read(&file) {
                Ok(bytes) => bytes,
                Err(source) if source.kind() == ErrorKind::NotFound && name != TOKENIZER_JSON => {
                    continue;
                }
                Err(source) => return Err(DataError::Unreadable { path: file, source }),
            };
            ssa_files::write(&directory.join(name), bytes)?;
            copied.push(name);
        }
        Ok(copied)
    }
}
