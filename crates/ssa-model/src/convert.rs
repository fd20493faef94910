//! Conversion between plain models and models with gates.
//!
//! A gate with zero weights is the constant sigmoid(0) = 1/2, and
//! `(2 o_proj) (h / 2) = o_proj h`. Doubling and halving are exact, so both models compute the same
//! function under full attention, bit for bit in `f32`.

use ssa_kernels::Tensor;

use crate::parameters::G_PROJ;
use crate::{
    AttentionMode, Method, Model, ModelConfig, ModelError, ModelSettings, Parameters, Result,
    SparseBudget,
};

impl Model {
    /// Converts a plain model to an SSA model with this budget: gates with zero weights, doubled
    /// output projections.
    ///
    /// # Errors
    /// [`ModelError::HasGates`] if the model has gates already; otherwise as [`Parameters::zeros`].
    pub fn with_gates(self, budget: SparseBudget) -> Result<Self> {
        if self.config().gated {
            return Err(ModelError::HasGates);
        }
        let config = ModelConfig::new(ModelSettings {
            gated: true,
            attention_method: Method::of_model(true),
            budget,
            ..self.config().settings()
        })?;
        let device = self.device();
        let is_gate = |name: &str| name.ends_with(G_PROJ);
        let gates = Parameters::zeros_for(&config, &device, device.dtype(), is_gate)?;
        let mut parameters = self.into_parameters();
        for (layer, gates) in parameters.layers.iter_mut().zip(gates.layers) {
            layer.g_proj = gates.g_proj;
            let o_proj = layer.o_proj.try_clone()?;
            layer.o_proj.add_assign(&o_proj)?;
        }
        Self::new(config, parameters)
    }

    /// Converts a model on the CPU whose gate weights are zero to a plain model with halved output
    /// projections: Llama, or with biases Qwen2, or with norms of heads Qwen3.
    ///
    /// # Errors
    /// [`ModelError::NeedsGates`] if the method has no full attention, or with the first tensor of
    /// gate weights that are not zero; [`ModelError::Config`] for a model with both biases and
    /// norms.
    pub fn without_gates(self) -> Result<Self> {
        let method = self.config().attention_method;
        if !method.has_mode(AttentionMode::Full) {
            let problem = format!("method {method} has no full attention");
            return Err(ModelError::NeedsGates { problem });
        }
        let config = ModelConfig::new(ModelSettings {
            gated: false,
            attention_method: Method::of_model(false),
            budget: SparseBudget::PAPER,
            window_size: 0,
            ..self.config().settings()
        })?;
        check_neutral(self.parameters())?;
        let mut parameters = self.into_parameters();
        for layer in &mut parameters.layers {
            if layer.g_proj.take().is_some() {
                layer.o_proj.as_mut_slice()?.iter_mut().for_each(|weight| *weight *= 0.5);
            }
        }
        Self::new(config, parameters)
    }
}

/// Refuses gates that are not the constant 1/2.
fn check_neutral(parameters: &Parameters) -> Result<()> {
    let is_neutral = |gates: &Tensor| -> Result<bool> {
        Ok(gates.as_slice()?.iter().all(|&weight| weight == 0.0))
    };
    for (name, tensor) in parameters.named() {
        if name.ends_with(G_PROJ) && !is_neutral(tensor)? {
            let problem = format!("tensor `{name}` is not zero, so its gates vary with the input");
            return Err(ModelError::NeedsGates { problem });
        }
    }
    Ok(())
}
