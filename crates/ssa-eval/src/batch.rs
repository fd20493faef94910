//! Evaluation batches.

use ssa_data::{Batch, HeldOut, HeldOutPart};
use ssa_kernels::Documents;
use ssa_model::Input;

use crate::Result;

/// A batch of rows of held-out text.
#[derive(Clone, Debug)]
pub struct EvalBatch {
    /// The tokens.
    pub input: Input,
    /// The next token of each token, or [`IGNORE_INDEX`](ssa_data::IGNORE_INDEX).
    pub labels: Vec<i32>,
    /// The mask of the tokens that are not padding.
    pub valid: Vec<bool>,
    /// Bytes of text that the labels cover.
    pub bytes: f64,
}

impl EvalBatch {
    /// Creates batches of up to `batch_size` rows that cover every row once. Batches of several
    /// parts alternate, so the first ones sample all parts.
    ///
    /// # Errors
    /// [`EvalError::Data`](crate::EvalError::Data) if rows cannot be read, or for a batch size of
    /// 0.
    pub fn of(held_out: &HeldOut, batch_size: usize) -> Result<Vec<Self>> {
        let batches = held_out.parts.iter().map(|part| Self::of_part(part, batch_size));
        let mut parts =
            batches.map(|batches| batches.map(Vec::into_iter)).collect::<Result<Vec<_>>>()?;
        let mut alternating = Vec::new();
        while !parts.is_empty() {
            alternating.extend(parts.iter_mut().filter_map(Iterator::next));
            parts.retain(|part| part.len() > 0);
        }
        Ok(alternating)
    }

    fn of_part(part: &HeldOutPart, batch_size: usize) -> Result<Vec<Self>> {
        let batches = part.rows.sequential_batches(batch_size)?;
        batches.map(|batch| Self::new(batch?, part.bytes_per_target)).collect()
    }

    fn new(batch: Batch, bytes_per_target: f64) -> Result<Self> {
        let bytes = batch.target_tokens() as f64 * bytes_per_target;
        let documents = Documents::from_cu_seqlens(batch.cu_seqlens)?;
        let input = Input::new(batch.ids, batch.batch, batch.tokens, documents)?;
        Ok(Self { input, labels: batch.labels, valid: batch.valid, bytes })
    }

    /// The first batches with at least `tokens` tokens together; all of them if there are fewer.
    pub fn covering(batches: &[Self], tokens: usize) -> &[Self] {
        let mut covered = 0;
        let enough = batches.iter().take_while(|batch| {
            let more = covered < tokens;
            covered += batch.valid_tokens();
            more
        });
        &batches[..enough.count()]
    }

    /// Number of tokens that are not padding.
    pub fn valid_tokens(&self) -> usize {
        self.valid.iter().filter(|&&valid| valid).count()
    }
}

#[cfg(test)]
mod tests {
    use ssa_data::{Document, Tokenizer};

    use super::*;

    fn batches(text: &[u8]) -> Vec<EvalBatch> {
        let document = Document { name: "x".to_owned(), text: text.to_vec() };
        let held_out = HeldOut::from_documents(&[document], &Tokenizer::Bytes, 4).unwrap();
        EvalBatch::of(&held_out, 2).unwrap()
    }

    #[test]
    fn all_text_is_covered_once() {
        // Ten bytes and the end of the document: three rows, the last with one padding token.
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
