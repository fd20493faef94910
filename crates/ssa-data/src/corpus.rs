//! The tokenizer of a corpus of shards, and the bytes of text behind its tokens.

use std::path::Path;

use ssa_text::{TOKENIZER_JSON, Tokenizer};

use crate::Result;
use crate::permutation::Permutation;
use crate::random::Purpose;
use crate::shard::Manifest;
use crate::token_source::TokenSource;

/// Returns the tokenizer of a corpus of shards: the one in its manifest, or a `tokenizer.json` next
/// to it. `None` for a corpus from another program without one.
///
/// # Errors
/// Same as [`Manifest::read`] and [`Manifest::load_tokenizer`].
pub fn corpus_tokenizer(path: &Path) -> Result<Option<Tokenizer>> {
    if let Some(manifest) = Manifest::read(path)? {
        return manifest.load_tokenizer(path).map(Some);
    }
    let is_there = path.join(TOKENIZER_JSON).is_file();
    Ok(is_there.then(|| Tokenizer::load(path, None)).transpose()?)
}

impl TokenSource {
    /// Returns the mean bytes of text per target token of some documents.
    ///
    /// Corpora from `ssa data prepare` record the bytes of text of every document. For others the
    /// tokens of about `limit` tokens of documents are decoded: those that
    /// [`pack_documents`](crate::pack_documents) with a seed of 0 puts first. This is an estimate
    /// if the tokenizer changes the text, for example by normalization.
    ///
    /// # Errors
    /// [`DataError::Corpus`](crate::DataError::Corpus) for a corrupt shard,
    /// [`DataError::Text`](crate::DataError::Text) for a token outside the vocabulary.
    pub fn bytes_per_target(
        &self,
        documents: &[u32],
        tokenizer: &Tokenizer,
        limit: usize,
    ) -> Result<f64> {
        let (mut bytes, mut targets) = (0_u64, 0_u64);
        if let Some(known) = self.text_bytes(documents) {
            // The first token of a document is not a target; its end is.
            let tokens = documents.iter().map(|&document| self.document_tokens(document));
            targets = tokens.map(|tokens| tokens.saturating_sub(1) as u64).sum();
            bytes = known;
        } else {
            let order = Permutation::new(documents.len() as u64, 0, Purpose::DocumentOrder, 0, 0);
            let mut ids = Vec::new();
            for position in 0..documents.len() as u64 {
                if targets >= limit as u64 {
                    break;
                }
                let document = documents[order.get(position) as usize];
                ids.clear();
                self.read(document, 0..self.document_tokens(document).min(limit), &mut ids)?;
                targets += ids.len().saturating_sub(1) as u64;
                ids.pop_if(|id| *id == self.eos());
                bytes += tokenizer.decode_bytes(&ids)?.len() as u64;
            }
        }
        Ok(if targets == 0 { 0.0 } else { bytes as f64 / targets as f64 })
    }
}
