//! The parts in which the architectures of checked models differ.

use ssa_model::{Model, ModelError};
use ssa_testkit::Random;

/// The parts of a model that not every family has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Architecture {
    pub(crate) gated: bool,
    pub(crate) qkv_bias: bool,
    pub(crate) qk_norm: bool,
}

impl Architecture {
    /// That of the released code.
    pub(crate) const GATED: Self = Self { gated: true, qkv_bias: false, qk_norm: false };
    /// Llama.
    pub(crate) const PLAIN: Self = Self { gated: false, ..Self::GATED };

    /// What distinguishes it from [`Architecture::GATED`], for the name of a case.
    pub(crate) fn name(self) -> String {
        let parts =
            [(!self.gated, " ungated"), (self.qkv_bias, " qkv_bias"), (self.qk_norm, " qk_norm")];
        parts.into_iter().filter(|(holds, _)| *holds).map(|(_, name)| name).collect()
    }
}

/// Moves biases away from 0 and norms of heads away from 1, their initial values, with which a
/// computation that leaves them out would be right.
pub(crate) fn vary_constants(model: &mut Model) -> Result<(), ModelError> {
    let mut random = Random::new(11);
    for (name, tensor) in model.parameters_mut().named_mut() {
        if [".bias", "q_norm.weight", "k_norm.weight"].iter().any(|end| name.ends_with(end)) {
            let values = tensor.as_mut_slice()?;
            let changes = random.normal(values.len());
            values.iter_mut().zip(changes).for_each(|(value, change)| *value += 0.3 * change);
        }
    }
    Ok(())
}
