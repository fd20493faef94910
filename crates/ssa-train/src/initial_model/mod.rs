//! The initial weights of a run.

mod configuration;

use std::path::Path;

use ssa_model::{Model, ModelConfig};

use crate::checkpoint::verify_model;
use crate::model_source::ModelSource;
use crate::plan::TrainPlan;
use crate::{Result, TrainError};

/// Creates the initial model: random weights from the seed, or the weights of the model
/// `model.init_from`.
///
/// A checkpoint only supplies weights. Maximum document length, RoPE scaling, blocks, window and
/// method come from the configuration, for continued training with a longer context, a different
/// budget or a different method.
///
/// # Errors
/// [`TrainError::Vocabulary`] if the data has tokens outside the checkpoint's vocabulary,
/// [`TrainError::InitFrom`] if anything else differs, [`TrainError::Model`] if the checkpoint
/// cannot be read, [`TrainError::Checkpoint`] if its checksums do not match.
pub fn initial_model(plan: &TrainPlan) -> Result<Model> {
    let Some(name) = plan.init_from() else {
        return Ok(Model::init(plan.model().clone(), plan.seed())?);
    };
    let directory = &ModelSource::find(name)?.directory;
    verify_model(directory)?;
    let checkpoint = Model::load(directory)?;
    check_vocabulary(directory, plan.tokenizer().vocab_size(), checkpoint.config())?;
    check_same_function(directory, plan.model(), checkpoint.config())?;
    Ok(Model::new(plan.model().clone(), checkpoint.into_parameters())?)
}

/// The checkpoint's vocabulary must cover every token of the data. It may be larger: published
/// matrices are often padded.
fn check_vocabulary(directory: &Path, needed: usize, checkpoint: &ModelConfig) -> Result<()> {
    let vocab_size = checkpoint.vocab_size;
    if vocab_size >= needed {
        return Ok(());
    }
    Err(TrainError::Vocabulary { directory: directory.to_owned(), vocab_size, needed })
}

/// These keys define the shapes and the meaning of all weights.
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
            ("gated", config.gated.to_string()),
            ("qkv_bias", config.qkv_bias.to_string()),
            ("qk_norm", config.qk_norm.to_string()),
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
