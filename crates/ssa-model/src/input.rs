//! The input of a model: tokens with document borders, and labels for training.

use ssa_kernels::Documents;

use crate::Result;
use crate::error::InputError;

/// The tokens of one call: `batch` rows of `tokens` ids, with their documents.
#[derive(Clone, Debug)]
pub struct Input {
    ids: Vec<u32>,
    batch: usize,
    tokens: usize,
    documents: Documents,
}

impl Input {
    /// Creates an input. Checks that ids, sizes and documents match and that no document crosses
    /// the end of a row.
    ///
    /// # Errors
    /// [`InputError`] names the mismatch.
    pub fn new(ids: Vec<u32>, batch: usize, tokens: usize, documents: Documents) -> Result<Self> {
        if ids.is_empty() || batch.checked_mul(tokens) != Some(ids.len()) {
            return Err(InputError::Ids { ids: ids.len(), batch, tokens }.into());
        }
        if documents.total_tokens() != ids.len() {
            let covered = documents.total_tokens();
            return Err(InputError::Documents { covered, ids: ids.len() }.into());
        }
        let crossing =
            documents.ranges().find(|range| range.start / tokens != (range.end - 1) / tokens);
        match crossing {
            Some(range) => Err(InputError::DocumentCrossesRow { range, tokens }.into()),
            None => Ok(Self { ids, batch, tokens, documents }),
        }
    }

    /// Creates rows with one document each.
    ///
    /// # Errors
    /// [`InputError::Ids`] if the number of ids is not `batch * tokens` or is zero.
    pub fn rows(ids: Vec<u32>, batch: usize, tokens: usize) -> Result<Self> {
        if batch.checked_mul(tokens) != Some(ids.len()) {
            return Err(InputError::Ids { ids: ids.len(), batch, tokens }.into());
        }
        Self::new(ids, batch, tokens, Documents::rows(batch, tokens)?)
    }

    /// The token ids in row order.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Number of rows B.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Tokens per row T.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The documents inside the rows.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Number of tokens N = B * T.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no tokens; always false.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// A training micro-batch: an input, the label of every token, and a padding mask.
#[derive(Clone, Debug)]
pub struct TrainBatch {
    input: Input,
    labels: Vec<i32>,
    valid: Option<Vec<bool>>,
}

impl TrainBatch {
    /// Creates a batch. Checks that labels and mask have one entry per token. `labels[t]` is the
    /// token that follows `t`, or [`IGNORE_INDEX`](ssa_kernels::ops::cross_entropy::IGNORE_INDEX).
    /// `valid` marks the tokens that are not padding; `None` means all.
    ///
    /// # Errors
    /// [`InputError::Length`] if a length differs from the number of tokens.
    pub fn new(input: Input, labels: Vec<i32>, valid: Option<Vec<bool>>) -> Result<Self> {
        let lengths = [("labels", Some(labels.len())), ("valid", valid.as_ref().map(Vec::len))];
        for (list, len) in lengths {
            if let Some(len) = len.filter(|&len| len != input.len()) {
                return Err(InputError::Length { list, len, tokens: input.len() }.into());
            }
        }
        Ok(Self { input, labels, valid })
    }

    /// The tokens.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// The label of every token.
    pub fn labels(&self) -> &[i32] {
        &self.labels
    }

    /// The mask of the tokens that are not padding, if some are.
    pub fn valid(&self) -> Option<&[bool]> {
        self.valid.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelError;

    #[test]
    fn documents_stay_inside_rows() {
        let input = |batch, offsets: [usize; 4]| {
            let documents = Documents::from_cu_seqlens(offsets.to_vec()).unwrap();
            Input::new(vec![0; 8], batch, 4, documents)
        };
        assert_eq!(input(2, [0, 1, 4, 8]).unwrap().documents().len(), 3);
        let refused = |result: Result<Input>| match result {
            Err(ModelError::Input(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            refused(input(2, [0, 3, 5, 8])),
            InputError::DocumentCrossesRow { range: 3..5, tokens: 4 }
        );
        assert_eq!(refused(input(2, [0, 2, 4, 7])), InputError::Documents { covered: 7, ids: 8 });
        let ids = |ids, batch, tokens| InputError::Ids { ids, batch, tokens };
        assert_eq!(refused(input(3, [0, 2, 4, 8])), ids(8, 3, 4));
        assert_eq!(refused(Input::rows(vec![], 0, 4)), ids(0, 0, 4));
        assert_eq!(refused(Input::rows(vec![0], usize::MAX, 3)), ids(1, usize::MAX, 3));
    }

    #[test]
    fn labels_and_mask_have_one_entry_per_token() {
        let input = Input::rows(vec![0; 8], 2, 4).unwrap();
        for (list, labels, valid) in [("labels", 7, 8), ("valid", 8, 9)] {
            let result = TrainBatch::new(input.clone(), vec![0; labels], Some(vec![true; valid]));
            let Err(ModelError::Input(error)) = result else { panic!("{result:?}") };
            let len = labels + valid - 8;
            assert_eq!(error, InputError::Length { list, len, tokens: 8 });
        }
    }
}
