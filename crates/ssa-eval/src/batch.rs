//! What is evaluated.

use ssa_data::{Batch, ByteTokenizer, Document, PackOptions, PackedRows, Remainder, pack};
use ssa_kernels::Documents;
use ssa_model::Input;

use crate::Result;

/// Some rows of held-out text: they run through the model together.
#[derive(Clone, Debug)]
pub struct EvalBatch {
    /// The tokens.
    pub input: Input,
    /// The token that follows each token, or [`IGNORE_INDEX`](ssa_data::IGNORE_INDEX).
    pub labels: Vec<i32>,
    /// Whether each token is real; the others are padding and count nowhere.
    pub valid: Vec<bool>,
    /// Bytes of text the labels cover.
    pub bytes: usize,
}

impl EvalBatch {
    /// Packs documents into rows of `sequence_length` bytes and these into batches of up to `batch_size` rows. Every
    /// byte of the documents is in exactly one batch; the last row may be padded.
    ///
    /// # Errors
    /// [`EvalError::Data`](crate::EvalError::Data) without text, or for impossible sizes.
    pub fn pack(documents: &[Document], sequence_length: usize, batch_size: usize) -> Result<Vec<Self>> {
        // Every row is evaluated, so the order of documents only decides where rows cut them.
        let options = PackOptions { sequence_length, seed: 0, remainder: Remainder::Pad };
        let rows = pack(&ByteTokenizer.encode_documents(documents), ByteTokenizer::EOS, &options)?;
        Self::from_rows(&rows, batch_size)
    }

    fn from_rows(rows: &PackedRows, batch_size: usize) -> Result<Vec<Self>> {
        rows.sequential_batches(batch_size)?.map(Self::new).collect()
    }

    fn new(batch: Batch) -> Result<Self> {
        // One token per byte: the targets of a document are its bytes but the first, and its end.
        let bytes = batch.target_tokens();
        let documents = Documents::from_cu_seqlens(batch.cu_seqlens)?;
        let input = Input::new(batch.ids, batch.batch, batch.tokens, documents)?;
        Ok(Self { input, labels: batch.labels, valid: batch.valid, bytes })
    }

    /// The first batches that together have at least so many tokens; all of them if they have fewer.
    pub fn covering(batches: &[Self], tokens: usize) -> &[Self] {
        let mut covered = 0;
        let enough = batches.iter().take_while(|batch| {
            let more = covered < tokens;
            covered += batch.valid_tokens();
            more
        });
        &batches[..enough.count()]
    }

    /// Tokens that are not padding.
    pub fn valid_tokens(&self) -> usize {
        self.valid.iter().filter(|&&valid| valid).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(text: &[u8]) -> Vec<EvalBatch> {
        let document = Document { name: "x".to_owned(), text: text.to_vec() };
        EvalBatch::pack(&[document], 4, 2).unwrap()
    }

    #[test]
    fn all_text_is_covered_once() {
        // Ten bytes and their end: three rows, the last with a token of padding.
        let batches = batches(b"abcdefghij");
        let shapes: Vec<_> =
            batches.iter().map(|batch| (batch.input.batch(), batch.valid_tokens())).collect();
        assert_eq!(shapes, [(2, 8), (1, 3)]);
        assert_eq!(batches.iter().map(|batch| batch.bytes).sum::<usize>(), 10);
    }

    #[test]
    fn enough_batches_are_taken() {
        let batches = batches(b"abcdefghij");
        for (tokens, count) in [(0, 0), (1, 1), (8, 1), (9, 2), (100, 2)] {
            assert_eq!(EvalBatch::covering(&batches, tokens).len(), count, "{tokens} tokens");
        }
    }
}
