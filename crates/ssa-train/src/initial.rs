//! The weights a run starts from.

use std::path::Path;

use ssa_model::{Model, ModelConfig};

use crate::{Result, TrainError, TrainPlan};

impl TrainPlan {
    /// The model to start from: random weights by the seed, or those of the checkpoint `model.init_from`.
    ///
    /// A checkpoint gives its weights; everything that is not a weight (RoPE, blocks, window, method) is as
    /// configured, which is how a model is trained on for a longer context or another budget.
    ///
    /// # Errors
    /// [`TrainError::InitFrom`] if the sizes differ, [`TrainError::Model`] if the checkpoint cannot be read.
    pub fn initial_model(&self) -> Result<Model> {
        match self.init_from() {
            None => Ok(Model::init(self.model().clone(), self.seed())?),
            Some(directory) => {
                let checkpoint = Model::load(directory)?;
                check_sizes(directory, self.model(), checkpoint.config())?;
                Ok(Model::new(self.model().clone(), checkpoint.parameters().clone())?)
            }
        }
    }
}

/// The shapes of all weights follow from these keys.
fn check_sizes(directory: &Path, configured: &ModelConfig, checkpoint: &ModelConfig) -> Result<()> {
    let sizes = |config: &ModelConfig| {
        [
            ("vocab_size", config.vocab_size.to_string()),
            ("hidden_size", config.hidden_size.to_string()),
            ("intermediate_size", config.intermediate_size.to_string()),
            ("num_hidden_layers", config.num_hidden_layers.to_string()),
            ("num_attention_heads", config.num_attention_heads.to_string()),
            ("num_key_value_heads", config.num_key_value_heads.to_string()),
            ("head_dim", config.head_dim.to_string()),
            ("tie_word_embeddings", config.tie_word_embeddings.to_string()),
        ]
    };
    let pairs = sizes(configured).into_iter().zip(sizes(checkpoint));
    let differences: Vec<String> = pairs
        .filter(|(ours, theirs)| ours != theirs)
        .map(|((key, ours), (_, theirs))| format!("{key} is {ours}, the checkpoint has {theirs}"))
        .collect();
    if differences.is_empty() {
        Ok(())
    } else {
        Err(TrainError::InitFrom { directory: directory.to_owned(), differences })
    }
}

#[cfg(test)]
mod tests;
