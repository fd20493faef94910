//! What is evaluated.

use ssa_data::{
    Batch, Document, PackOptions, PackedRows, Packing, Remainder, Tokenizer, pack, text_bytes,
};
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
    pub bytes: f64,
}

impl EvalBatch {
    /// Packs documents into rows of `sequence_length` tokens and these into batches of up to
    /// `batch_size` rows. Every byte of the documents is in exactly one batch; the last row may be
    /// padded.
    ///
    /// # Errors
    /// [`EvalError::Data`](crate::EvalError::Data) without text, for impossible sizes, or if the
    /// tokenizer refuses a document.
    pub fn pack(
        documents: &[Document],
        tokenizer: &Tokenizer,
        sequence_length: usize,
        batch_size: usize,
    ) -> Result<Vec<Self>> {
        // Every row is evaluated, so the order of documents only decides where rows cut them.
        let options = PackOptions {
            sequence_length,
            packing: Packing::Concat,
            seed: 0,
            remainder: Remainder::Pad,
        };
        let ids = tokenizer.encode_documents(documents)?;
        let rows = pack(&ids, tokenizer.eos(), &options)?;
        // The first token of a document is no target, its end is one.
        let targets: usize = ids.iter().map(Vec::len).sum();
        Self::from_rows(&rows, text_bytes(documents) as f64 / targets as f64, batch_size)
    }

    /// Batches of up to `batch_size` rows of any tokens, of which every target stands for so many
    /// bytes of text.
    ///
    /// # Errors
    /// [`EvalError::Data`](crate::EvalError::Data) if rows cannot be read, or for a batch size of
    /// 0.
    pub fn from_rows(
        rows: &PackedRows,
        bytes_per_target: f64,
        batch_size: usize,
    ) -> Result<Vec<Self>> {
        rows.sequential_batches(batch_size)?
            .map(|batch| Self::new(batch?, bytes_per_target))
            .collect()
    }

    fn new(batch: Batch, bytes_per_target: f64) -> Result<Self> {
        let bytes = batch.target_tokens() as f64 * bytes_per_target;
        let documents = Documents::from_cu_seqlens(batch.cu_seqlens)?;
        let input = Input::new(batch.ids, batch.batch, batch.tokens, documents)?;
        Ok(Self { input, labels: batch.labels, valid: batch.valid, bytes })
    }

    /// The first batches that together have at least so many tokens; all of them if they have
    /// fewer.
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
        EvalBatch::pack(&[document], &Tokenizer::Bytes, 4, 2).unwrap()
    }

    #[test]
    fn all_text_is_covered_once() {
        // Ten bytes and their end: three rows, the last with a token of padding.
        let batches = batches(b"abcdefghij");
        let shapes: Vec<_> =
            batches.iter().map(|batch| (batch.input.batch(), batch.valid_tokens())).collect();
        assert_eq!(shapes, [(2, 8), (1, 3)]);
        assert_eq!(batches.iter().map(|batch| batch.bytes).sum::<f64>(), 10.0);
    }

    #[test]
    fn enough_batches_are_taken() {
        let batches = batches(b"abcdefghij");
        for (tokens, count) in [(0, 0), (1, 1), (8, 1), (9, 2), (100, 2)] {
            assert_eq!(EvalBatch::covering(&batches, tokens).len(), count, "{tokens} tokens");
        }
    }
}
