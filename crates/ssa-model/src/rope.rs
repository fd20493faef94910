//! The RoPE table of a model, which grows with the longest input.

use std::sync::{Arc, Mutex, PoisonError};

use ssa_kernels::ops::rope::RopeTable;

use crate::{ModelConfig, Result};

/// Cosines and sines for documents of every length seen so far. Configurations allow millions of
/// positions, but most inputs need a few thousand.
pub struct GrowingRopeTable {
    table: Mutex<Arc<RopeTable>>,
}

impl GrowingRopeTable {
    /// An empty table.
    ///
    /// # Errors
    /// Same as [`RopeTable::new`].
    pub fn new(config: &ModelConfig) -> Result<Self> {
        Ok(Self { table: Mutex::new(Arc::new(table(config, 0)?)) })
    }

    /// Returns a table for documents of up to `tokens` tokens. It grows by doubling, so increasing
    /// document lengths recompute it only a few times.
    ///
    /// # Errors
    /// Same as [`RopeTable::new`].
    pub fn covering(&self, tokens: usize, config: &ModelConfig) -> Result<Arc<RopeTable>> {
        let mut current = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if current.positions() < tokens {
            let positions = tokens.next_power_of_two().min(config.max_position_embeddings);
            *current = Arc::new(table(config, positions)?);
        }
        Ok(current.clone())
    }
}

fn table(config: &ModelConfig, positions: usize) -> Result<RopeTable> {
    Ok(RopeTable::new(config.head_dim, config.rope_theta, &config.rope_scaling, positions)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelSettings;

    #[test]
    fn the_table_is_as_long_as_documents_need() {
        let settings =
            ModelSettings { max_position_embeddings: 100_000_000, ..ModelSettings::ssa_1b() };
        let config = ModelConfig::new(settings).unwrap();
        let rope = GrowingRopeTable::new(&config).unwrap();
        let covering = |tokens| rope.covering(tokens, &config).unwrap().positions();
        let positions = [20, 7, 32, 33, 1].map(covering);
        assert_eq!(positions, [32, 32, 32, 64, 64]);
    }
}
