//! From a plain model to one with gates that computes the same function.

use crate::parameters::G_PROJ;
use crate::{
    Method, Model, ModelConfig, ModelError, ModelSettings, Parameters, Result, SparseBudget,
};

impl Model {
    /// The same function under full attention, as an SSA model of this budget: the weights of the
    /// gates are zero, so that every gate is sigmoid(0) = 1/2, and the output projection is doubled.
    /// Halves and doubles are exact, and so is the result, bit for bit in `f32`.
    ///
    /// # Errors
    /// [`ModelError::HasGates`] if the model has gates already; otherwise as
    /// [`Parameters::zeros`](crate::Parameters::zeros).
    pub fn with_gates(self, budget: SparseBudget) -> Result<Self> {
        if self.config().gated {
            return Err(ModelError::HasGates);
        }
        let settings = ModelSettings {
            gated: true,
            attention_method: Method::of_model(true),
            budget,
            ..self.config().settings()
        };
        let config = ModelConfig::new(settings)?;
        let device = self.device();
        let is_gate = |name: &str| name.ends_with(G_PROJ);
        let gates = Parameters::zeros_for(&config, &device, device.dtype(), is_gate)?;
        let mut parameters = self.into_parameters();
        for (layer, gates) in parameters.layers.iter_mut().zip(gates.layers) {
            layer.g_proj = gates.g_proj;
            let o_proj = layer.o_proj.clone();
            layer.o_proj.add_assign(&o_proj)?;
        }
        Self::new(config, parameters)
    }
}
