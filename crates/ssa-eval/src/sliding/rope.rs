//! Scaling of RoPE for windows that are longer than those of training.

use ssa_model::{ModelConfig, ModelSettings, RopeScaling, Yarn};

use crate::{EvalError, Result};

/// How RoPE is scaled for a window of L tokens, with the factor s = L / original length (at least
/// 1) or a fixed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeMethod {
    /// The model as it is.
    None,
    /// Position interpolation: positions divided by s (arXiv 2306.15595).
    Linear,
    /// NTK-aware: theta times `s^(D / (D - 2))` for heads of size D, which interpolates the lowest
    /// frequency by s and leaves the highest as it is.
    Ntk,
    /// `YaRN` with the defaults of transformers (arXiv 2309.00071).
    Yarn,
}

ssa_names::names!(RopeMethod: "RoPE scaling" {
    None = "none",
    Linear = "linear",
    Ntk = "ntk",
    Yarn = "yarn",
});

/// The factors of RoPE scaling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeSettings {
    /// The context length of training.
    pub original_length: usize,
    /// The factor for all windows; by default window length over original length, at least 1.
    pub factor: Option<f64>,
}

impl RopeSettings {
    /// The factor s for a window of `length` tokens.
    pub fn factor_of(&self, length: usize) -> f64 {
        self.factor.unwrap_or_else(|| (length as f64 / self.original_length as f64).max(1.0))
    }
}

impl RopeMethod {
    /// The configuration of a model for windows of `length` tokens. It has at least as many
    /// positions.
    ///
    /// # Errors
    /// [`EvalError::Task`] for a model that scales its RoPE already;
    /// [`EvalError::Model`] if the scaled configuration is not valid.
    pub fn config(
        self,
        model: &ModelConfig,
        length: usize,
        settings: &RopeSettings,
    ) -> Result<ModelConfig> {
        let factor = settings.factor_of(length);
        let mut scaled = ModelSettings {
            max_position_embeddings: model.max_position_embeddings.max(length),
            ..model.settings()
        };
        if self != Self::None && scaled.rope_scaling != RopeScaling::None {
            let cause = "the model's config.json scales its RoPE already";
            return Err(EvalError::task(format!("--rope {self}"), cause, "pass --rope none"));
        }
        // A factor of 1 leaves RoPE as it is.
        if factor > 1.0 {
            match self {
                Self::None => {}
                Self::Linear => scaled.rope_scaling = RopeScaling::Linear { factor },
                Self::Ntk => {
                    let size = model.head_dim as f64;
                    scaled.rope_theta *= factor.powf(size / (size - 2.0));
                }
                Self::Yarn => {
                    scaled.rope_scaling = RopeScaling::Yarn(Yarn {
                        factor,
                        attention_factor: Yarn::default_attention_factor(factor),
                        beta_fast: 32.0,
                        beta_slow: 1.0,
                        original_max_position_embeddings: settings.original_length,
                        truncate: true,
                    });
                }
            }
        }
        Ok(ModelConfig::new(scaled)?)
    }
}
