//! What is known about a corpus of shards: its tokenizer, and through it the text.

use std::path::Path;

use ssa_text::{TOKENIZER_JSON, Tokenizer};

use crate::Result;
use crate::permutation::Permutation;
use crate::random::Purpose;
use crate::shard::Manifest;
use crate::token_source::TokenSource;

/// The tokenizer that a corpus of shards comes with: the one of its manifest, or a `tokenizer.json`
/// beside it. `None` for a corpus that another program wrote.
///
/// # Errors
/// As [`Manifest::read`] and [`Manifest::load_tokenizer`].
pub fn corpus_tokenizer(path: &Path) -> Result<Option<Tokenizer>> {
    if let Some(manifest) = Manifest::read(path)? {
        return manifest.load_tokenizer(path).map(Some);
    }
    let is_there = path.join(TOKENIZER_JSON).is_file();
    Ok(is_there.then(|| Tokenizer::load(path, None)).transpose()?)
}

impl TokenSource {
    /// Bytes of text for every target token of some documents.
    ///
    /// Corpora made by `ssa data prepare` know the bytes of the text of every document. Of others
    /// the tokens are decoded, of as many documents as have `limit` tokens: the ones that
    /// [`pack_documents`](crate::pack_documents) with a seed of 0 puts first. That is an estimate
    /// for a tokenizer that changes the text, such as one that normalizes it.
    ///
    /// # Errors
    /// [`DataError::Corpus`](crate::DataError::Corpus) for a damaged shard,
    /// [`DataError::Text`](crate::DataError::Text) for a token that is not in the vocabulary.
    pub fn bytes_per_target(
        &self,
        documents: &[u32],
        tokenizer: &Tokenizer,
        limit: usize,
    ) -> Result<f64> {
        let (mut bytes, mut targets) = (0_u64, 0_u64);
        if let Some(known) = self.text_bytes(documents) {
            // The first token of a document is no target, its end is one.
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
