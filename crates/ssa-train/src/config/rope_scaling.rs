//! `model.rope_scaling` and the scaling of a model.

use ssa_model::RopeScaling;

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
            }),
        }
    }
}
