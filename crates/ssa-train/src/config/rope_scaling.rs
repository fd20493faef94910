//! `model.rope_scaling` and the scaling of a model.

use ssa_model::{RopeScaling, Yarn};

use super::sections::{RopeScalingSection, RopeType};

impl RopeScalingSection {
    /// The scaling that the section describes.
    pub(crate) fn scaling(&self) -> RopeScaling {
        match self.rope_type {
            RopeType::Linear => RopeScaling::Linear { factor: self.factor },
            RopeType::Llama3 => RopeScaling::Llama3 {
                factor: self.factor,
                low_freq_factor: self.low_freq_factor,
                high_freq_factor: self.high_freq_factor,
                original_max_position_embeddings: self.original_max_position_embeddings,
            },
            RopeType::Yarn => RopeScaling::Yarn(Yarn {
                factor: self.factor,
                attention_factor: self
                    .attention_factor
                    .unwrap_or_else(|| Yarn::default_attention_factor(self.factor)),
                beta_fast: self.beta_fast,
                beta_slow: self.beta_slow,
                original_max_position_embeddings: self.original_max_position_embeddings,
                truncate: self.truncate,
            }),
        }
    }

    /// The section that describes a scaling.
    pub(crate) fn of(scaling: &RopeScaling) -> Option<Self> {
        match *scaling {
            RopeScaling::None => None,
            RopeScaling::Linear { factor } => {
                Some(Self { rope_type: RopeType::Linear, factor, ..Self::default() })
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => Some(Self {
                rope_type: RopeType::Llama3,
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
                ..Self::default()
            }),
            RopeScaling::Yarn(ref yarn) => Some(Self {
                rope_type: RopeType::Yarn,
                factor: yarn.factor,
                original_max_position_embeddings: yarn.original_max_position_embeddings,
                beta_fast: yarn.beta_fast,
                beta_slow: yarn.beta_slow,
                truncate: yarn.truncate,
                attention_factor: Some(yarn.attention_factor),
                ..Self::default()
            }),
        }
    }
}
