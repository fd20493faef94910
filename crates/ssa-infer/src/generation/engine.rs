//! Generation with an [`Engine`].

use ssa_kernels::kv_cache::SequenceId;

use super::{CachedModel, Chunk, Pass};
use crate::{CallOptions, Engine, FillChange, Logits, Result, SelectionTotals};

/// An engine with the attentions of both passes.
pub struct GenerationEngine {
    engine: Engine,
    target: CallOptions,
    draft: CallOptions,
    target_totals: SelectionTotals,
    draft_totals: SelectionTotals,
}

impl GenerationEngine {
    /// Generates by the attention `target` and drafts by the attention `draft`.
    pub fn new(engine: Engine, target: CallOptions, draft: CallOptions) -> Self {
        // Drafts read what the target filled, and leave the cache before the target runs again.
        let draft = CallOptions { fill_change: FillChange::Keep, ..draft };
        let [target_totals, draft_totals] = Default::default();
        Self { engine, target, draft, target_totals, draft_totals }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine, for calls besides generation.
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// A new sequence without tokens.
    pub fn add_sequence(&mut self) -> SequenceId {
        self.engine.add_sequence()
    }

    /// What a pass selected so far, prompts excepted.
    pub fn totals(&self, pass: Pass) -> SelectionTotals {
        match pass {
            Pass::Target => self.target_totals,
            Pass::Draft => self.draft_totals,
        }
    }

    /// Runs those of the chunks that want the same kind of logits, and puts their rows in place.
    fn run(
        &mut self,
        chunks: &[Chunk<'_, SequenceId>],
        pass: Pass,
        logits: Logits,
        rows: &mut [Vec<f32>],
    ) -> Result<()> {
        let of_kind: Vec<usize> =
            (0..chunks.len()).filter(|&index| kind(&chunks[index]) == logits).collect();
        if of_kind.is_empty() {
            return Ok(());
        }
        let call: Vec<_> =
            of_kind.iter().map(|&index| (chunks[index].sequence, chunks[index].ids)).collect();
        let options = if pass == Pass::Target { &self.target } else { &self.draft };
        let output = self.engine.forward(&call, options, logits)?;
        match pass {
            _ if logits != Logits::All => {}
            Pass::Target => self.target_totals += output.totals,
            Pass::Draft => self.draft_totals += output.totals,
        }
        let values = output.logits.to_vec()?;
        let mut rest = values.as_slice();
        for index in of_kind {
            let (own, after) = rest.split_at(chunks[index].logits * self.vocab_size());
            rows[index] = own.to_vec();
            rest = after;
        }
        Ok(())
    }
}

/// Which logits of a chunk are wanted: the loop asks for none, the last, or all.
fn kind(chunk: &Chunk<'_, SequenceId>) -> Logits {
    match chunk.logits {
        0 => Logits::None,
        rows if rows == chunk.ids.len() => Logits::All,
        _ => Logits::Last,
    }
}

impl CachedModel for GenerationEngine {
    type Sequence = SequenceId;

    fn vocab_size(&self) -> usize {
        self.engine.model().config().vocab_size
    }

    fn cached(&self, sequence: SequenceId) -> Result<usize> {
        Ok(self.engine.cache().tokens(sequence)?)
    }

    fn forward(&mut self, chunks: &[Chunk<'_, SequenceId>], pass: Pass) -> Result<Vec<f32>> {
        let mut rows = vec![Vec::new(); chunks.len()];
        for logits in [Logits::All, Logits::Last, Logits::None] {
            self.run(chunks, pass, logits, &mut rows)?;
        }
        Ok(rows.concat())
    }

    fn truncate(&mut self, sequence: SequenceId, tokens: usize) -> Result<()> {
        self.engine.truncate(sequence, tokens)
    }
}
