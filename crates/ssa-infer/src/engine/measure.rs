//! What the attentions of a whole text select.

use ssa_kernels::kv_cache::SequenceId;

use super::Engine;
use crate::layer::SelectionTotals;
use crate::{CallOptions, Result};

/// The result of [`Engine::measure`].
#[derive(Debug)]
pub struct MeasuredText {
    /// The hidden states `[N, hidden]` after the final norm, in `f32`.
    pub hidden: Vec<f32>,
    /// What each layer selected.
    pub layers: Vec<SelectionTotals>,
}

impl Engine {
    /// Runs a whole text on its own and measures what each layer selects, the true attention mass
    /// included, which costs one more attention.
    ///
    /// # Errors
    /// Same as [`Engine::forward`].
    pub fn measure(&mut self, ids: &[u32], options: &CallOptions) -> Result<MeasuredText> {
        self.settle_ahead()?;
        let id = self.add_sequence();
        let measured = self.measure_sequence(id, ids, options);
        self.remove_sequence(id)?;
        measured
    }

    fn measure_sequence(
        &mut self,
        id: SequenceId,
        ids: &[u32],
        options: &CallOptions,
    ) -> Result<MeasuredText> {
        self.check(&[(id, ids)])?;
        let mut hidden = Vec::new();
        let mut layers = vec![SelectionTotals::default(); self.model.layers.len()];
        for ids in ids.chunks(self.chunk_tokens()) {
            let sequences = self.cache.extend(&[(id, ids.len())])?;
            let (states, totals) = self.layers(ids, &sequences, options, true)?;
            layers.iter_mut().zip(totals).for_each(|(layer, totals)| *layer += totals);
            hidden.extend(self.model.normed(&states)?.to_vec()?);
        }
        Ok(MeasuredText { hidden, layers })
    }
}
