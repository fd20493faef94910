//! What goes into a model: tokens with document borders, and for training their labels.

use ssa_kernels::Documents;

use crate::{ModelError, Result};

/// The tokens of one call: `batch` rows of `tokens` ids with the documents inside them.
#[derive(Clone, Debug)]
pub struct Input {
    ids: Vec<u32>,
    batch: usize,
    tokens: usize,
    documents: Documents,
}

impl Input {
    /// Checks that ids, sizes and documents describe the same tokens and that no document crosses a
    /// row.
    ///
    /// # Errors
    /// [`ModelError::Input`] says which of them disagree.
    pub fn new(ids: Vec<u32>, batch: usize, tokens: usize, documents: Documents) -> Result<Self> {
        let refuse = |message: String| Err(ModelError::Input { message });
        if ids.is_empty() || ids.len() != batch * tokens {
            return refuse(format!("{} ids given for {batch} rows of {tokens} tokens", ids.len()));
        }
        if documents.total_tokens() != ids.len() {
            let total = documents.total_tokens();
            return refuse(format!(
                "the documents cover {total} tokens, but there are {}",
                ids.len()
            ));
        }
        if let Some(range) =
            documents.ranges().find(|range| range.start / tokens != (range.end - 1) / tokens)
        {
            return refuse(format!(
                "the document at tokens {range:?} crosses the end of a row of {tokens}"
            ));
        }
        Ok(Self { ids, batch, tokens, documents })
    }

    /// Rows that hold one document each.
    ///
    /// # Errors
    /// [`ModelError::Input`] if the number of ids is not `batch * tokens` or is zero,
    /// [`ModelError::Kernel`] if it is more than [`Documents::MAX_TOKENS`].
    pub fn rows(ids: Vec<u32>, batch: usize, tokens: usize) -> Result<Self> {
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

    /// Tokens of a row T.
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

    /// Whether there is no token; never true for a checked input.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// A micro-batch of training: an input, the label of every token and which tokens are real.
#[derive(Clone, Debug)]
pub struct TrainBatch {
    input: Input,
    labels: Vec<i32>,
    valid: Option<Vec<bool>>,
}

impl TrainBatch {
    /// Checks that labels and mask have one entry per token. `labels[t]` is the token that follows
    /// `t`, or [`IGNORE_INDEX`](ssa_kernels::ops::cross_entropy::IGNORE_INDEX). `valid` marks the
    /// tokens that are not padding; `None` means all.
    ///
    /// # Errors
    /// [`ModelError::Input`] if a length differs from the number of tokens.
    pub fn new(input: Input, labels: Vec<i32>, valid: Option<Vec<bool>>) -> Result<Self> {
        for (name, len) in [("labels", Some(labels.len())), ("valid", valid.as_ref().map(Vec::len))]
        {
            if let Some(len) = len.filter(|&len| len != input.len()) {
                let message = format!("{name} has {len} entries for {} tokens", input.len());
                return Err(ModelError::Input { message });
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

    /// Which tokens are real, if some are padding.
    pub fn valid(&self) -> Option<&[bool]> {
        self.valid.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_stay_inside_rows() {
        let documents = |offsets: &[usize]| Documents::from_cu_seqlens(offsets.to_vec()).unwrap();
        assert!(Input::new(vec![0; 8], 2, 4, documents(&[0, 1, 4, 8])).is_ok());
        for (batch, offsets) in [(2, [0, 3, 5, 8]), (2, [0, 2, 4, 7]), (3, [0, 2, 4, 8])] {
            assert!(Input::new(vec![0; 8], batch, 4, documents(&offsets)).is_err());
        }
        assert!(Input::rows(vec![], 0, 4).is_err());
    }
}
