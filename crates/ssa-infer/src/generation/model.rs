//! What generation needs of a model.

use crate::{Draw, Result};

/// Which attention a call runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The one that the text is generated with.
    Target,
    /// The cheaper one that drafts are made with. It reads the cache that the target filled.
    Draft,
}

/// The next tokens of one sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chunk<'a, S> {
    /// The sequence.
    pub sequence: S,
    /// All its tokens up to the last of the chunk.
    pub ids: &'a [u32],
    /// How many of them are in the cache; fewer than there are.
    pub cached: usize,
    /// The number of last tokens after each of which a token is drawn: none, one or all that are
    /// not in the cache.
    pub draws: usize,
    /// How tokens are drawn.
    pub draw: Draw<'a>,
}

impl<'a, S> Chunk<'a, S> {
    /// The tokens that are not in the cache.
    pub fn new_ids(&self) -> &'a [u32] {
        &self.ids[self.cached..]
    }

    /// The tokens that follow, of logits `[draws, V]`: the definition of what is drawn.
    ///
    /// # Errors
    /// [`InferError::Sampling`](crate::InferError::Sampling) if no token can be drawn.
    pub fn draw_tokens(&self, logits: &[f32], vocab_size: usize) -> Result<Vec<u32>> {
        let first = self.ids.len() - self.draws + 1;
        let rows = (first..).zip(logits.chunks_exact(vocab_size));
        rows.map(|(end, row)| Ok(self.draw.token(row, &self.ids[..end])?)).collect()
    }
}

/// A language model with a cache of sequences.
pub trait CachedModel {
    /// Names a sequence of the cache.
    type Sequence: Copy;

    /// The tokens of a sequence in the cache.
    ///
    /// # Errors
    /// There is no such sequence.
    fn cached(&self, sequence: Self::Sequence) -> Result<usize>;

    /// Adds the tokens of the chunks to the cache and returns the drawn tokens, those of the first
    /// chunk first. Each depends on its sequence alone. `continues` says that the next call will
    /// probably extend the same sequences by the tokens that this one draws.
    ///
    /// # Errors
    /// What the model says.
    fn forward(
        &mut self,
        chunks: &[Chunk<'_, Self::Sequence>],
        pass: Pass,
        continues: bool,
    ) -> Result<Vec<u32>>;

    /// Removes all but the first `tokens` tokens of a sequence from the cache.
    ///
    /// # Errors
    /// There is no such sequence.
    fn truncate(&mut self, sequence: Self::Sequence, tokens: usize) -> Result<()>;
}
