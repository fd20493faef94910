//! What generation needs of a model.

use crate::Result;

/// Which attention a call runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The one that the text is generated with.
    Target,
    /// The cheaper one that drafts are made with. It reads the cache that the target filled.
    Draft,
}

/// The next tokens of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a, S> {
    /// The sequence.
    pub sequence: S,
    /// The tokens after those in the cache, at least one.
    pub ids: &'a [u32],
    /// The number of last tokens whose logits are wanted: none, one or all.
    pub logits: usize,
}

/// A language model with a cache of sequences.
pub trait CachedModel {
    /// Names a sequence of the cache.
    type Sequence: Copy;

    /// Tokens of the vocabulary.
    fn vocab_size(&self) -> usize;

    /// The tokens of a sequence in the cache.
    ///
    /// # Errors
    /// There is no such sequence.
    fn cached(&self, sequence: Self::Sequence) -> Result<usize>;

    /// Adds the tokens of the chunks to the cache and returns the wanted logits `[rows, V]`, those
    /// of the first chunk first. Each row depends on its sequence alone.
    ///
    /// # Errors
    /// What the model says.
    fn forward(&mut self, chunks: &[Chunk<'_, Self::Sequence>], pass: Pass) -> Result<Vec<f32>>;

    /// Removes all but the first `tokens` tokens of a sequence from the cache.
    ///
    /// # Errors
    /// There is no such sequence.
    fn truncate(&mut self, sequence: Self::Sequence, tokens: usize) -> Result<()>;
}
