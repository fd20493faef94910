//! Generation with an [`Engine`].

use ssa_kernels::kv_cache::SequenceId;

use super::{CachedModel, Chunk, Pass};
use crate::{CallOptions, DrawRequest, Engine, FillChange, Logits, Result, SelectionTotals};

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

    /// Adds what the selections of a pass kept.
    fn add_totals(&mut self, pass: Pass, totals: SelectionTotals) {
        match pass {
            Pass::Target => self.target_totals += totals,
            Pass::Draft => self.draft_totals += totals,
        }
    }

    fn options(&self, pass: Pass) -> CallOptions {
        match pass {
            Pass::Target => self.target,
            Pass::Draft => self.draft,
        }
    }

    /// Runs those of the chunks that draw after the same tokens, and puts what they draw in place.
    fn run(
        &mut self,
        chunks: &[Chunk<'_, SequenceId>],
        pass: Pass,
        logits: Logits,
        drawn: &mut [Vec<u32>],
    ) -> Result<()> {
        let of_kind: Vec<usize> =
            (0..chunks.len()).filter(|&index| kind(&chunks[index]) == logits).collect();
        if of_kind.is_empty() {
            return Ok(());
        }
        let call = of_kind.iter().map(|&index| (chunks[index].sequence, chunks[index].new_ids()));
        let call: Vec<_> = call.collect();
        let output = self.engine.forward(&call, &self.options(pass), logits)?;
        if logits == Logits::All {
            self.add_totals(pass, output.totals);
        }
        let values = output.logits.to_vec()?;
        let vocab_size = self.engine.model().config().vocab_size;
        let mut rest = values.as_slice();
        for index in of_kind {
            let (own, after) = rest.split_at(chunks[index].draws * vocab_size);
            drawn[index] = chunks[index].draw_tokens(own, vocab_size)?;
            rest = after;
        }
        Ok(())
    }
}

/// After which of its tokens a chunk draws: the loop asks for none, the last, or all.
fn kind(chunk: &Chunk<'_, SequenceId>) -> Logits {
    match chunk.draws {
        0 => Logits::None,
        draws if draws == chunk.new_ids().len() => Logits::All,
        _ => Logits::Last,
    }
}

impl CachedModel for GenerationEngine {
    type Sequence = SequenceId;

    fn cached(&self, sequence: SequenceId) -> Result<usize> {
        Ok(self.engine.tokens(sequence).len())
    }

    fn forward(
        &mut self,
        chunks: &[Chunk<'_, SequenceId>],
        pass: Pass,
        continues: bool,
    ) -> Result<Vec<u32>> {
        if chunks.iter().all(|chunk| kind(chunk) == Logits::All) {
            let requests = chunks.iter().map(|&Chunk { sequence, draw, ids, cached, .. }| {
                DrawRequest { id: sequence, ids: &ids[cached..], draw }
            });
            let requests: Vec<_> = requests.collect();
            if self.engine.can_draw(&requests) {
                let options = self.options(pass);
                let (tokens, totals) = self.engine.draw(&requests, &options, continues)?;
                self.add_totals(pass, totals);
                return Ok(tokens);
            }
        }
        let mut drawn = vec![Vec::new(); chunks.len()];
        for logits in [Logits::All, Logits::Last, Logits::None] {
            self.run(chunks, pass, logits, &mut drawn)?;
        }
        Ok(drawn.concat())
    }

    fn truncate(&mut self, sequence: SequenceId, tokens: usize) -> Result<()> {
        self.engine.truncate(sequence, tokens)
    }
}
