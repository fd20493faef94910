//! The weights a run starts from.

use std::path::Path;

use ssa_model::{Model, ModelConfig};

use crate::{Result, TrainError, TrainPlan, verify_model};

impl TrainPlan {
    /// The model to start from: random weights by the seed, or those of the checkpoint
    /// `model.init_from`.
    ///
    /// A checkpoint gives its weights; the longest document, the scaling of RoPE, blocks, window
    /// and method are as configured, which is how a model is trained on for a longer context,
    /// another budget or by another method.
    ///
    /// # Errors
    /// [`TrainError::Vocabulary`] if the data has tokens that the checkpoint does not know,
    /// [`TrainError::InitFrom`] if anything else differs, [`TrainError::Model`] if the checkpoint
    /// cannot be read, [`TrainError::Checkpoint`] if it is not as it was written.
    pub fn initial_model(&self) -> Result<Model> {
        match self.init_from() {
            None => Ok(Model::init(self.model().clone(), self.seed())?),
            Some(directory) => {
                verify_model(directory)?;
                let checkpoint = Model::load(directory)?;
                self.check_vocabulary(directory, checkpoint.config())?;
                check_same_function(directory, self.model(), checkpoint.config())?;
                Ok(Model::new(self.model().clone(), checkpoint.parameters().clone())?)
            }
        }
    }
}

impl TrainPlan {
    /// A checkpoint must know every token of the data. More rows than tokens are usual: they pad
    /// the matrix.
    fn check_vocabulary(&self, directory: &Path, checkpoint: &ModelConfig) -> Result<()> {
        let needed = self.tokenizer().vocab_size();
        if checkpoint.vocab_size >= needed {
            return Ok(());
        }
        let vocab_size = checkpoint.vocab_size;
        Err(TrainError::Vocabulary { directory: directory.to_owned(), vocab_size, needed })
    }
}

/// The shapes of all weights and what they mean follow from these keys.
fn check_same_function(
    directory: &Path,
    configured: &ModelConfig,
    checkpoint: &ModelConfig,
) -> Result<()> {
    let keys = |config: &ModelConfig| {
        [
            ("vocab_size", config.vocab_size.to_string()),
            ("hidden_size", config.hidden_size.to_string()),
            ("intermediate_size", config.intermediate_size.to_string()),
            ("num_hidden_layers", config.num_hidden_layers.to_string()),
            ("num_attention_heads", config.num_attention_heads.to_string()),
            ("num_key_value_heads", config.num_key_value_heads.to_string()),
            ("head_dim", config.head_dim.to_string()),
            ("rope_theta", config.rope_theta.to_string()),
            ("rms_norm_eps", config.rms_norm_eps.to_string()),
            ("tie_word_embeddings", config.tie_word_embeddings.to_string()),
        ]
    };
    let pairs = keys(configured).into_iter().zip(keys(checkpoint));
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
