//! Finding the first non-finite value of a step.

use ssa_kernels::{KernelError, Tensor};
use ssa_model::{AttentionOptions, LayerAttention};

use super::{Trainer, train_batch};
use crate::Result;
use crate::diagnosis::row_list;

impl Trainer {
    /// Finds the first non-finite value of the step that has just failed: in the weights, in the
    /// forward pass of each micro-batch layer by layer, then in the gradients.
    ///
    /// # Errors
    /// Same as [`Trainer::step`].
    pub(crate) fn first_bad_value(&self) -> Result<String> {
        if let Some(name) = self.model.parameters().first_not_finite()? {
            return Ok(format!("the weight {name}"));
        }
        for (index, batch) in (0..).zip(self.indices()) {
            if let Some(place) = self.first_bad_activation(index, batch)? {
                let rows = self.batches.loader().row_ids(batch);
                return Ok(format!("{place} of micro-batch {index} ({})", row_list(&rows)));
            }
        }
        for (name, tensor) in self.grads.sum().named().into_iter().rev() {
            if is_bad(tensor)? {
                return Ok(format!("the gradient of {name}"));
            }
        }
        // Ranks on GPUs have given their gradients away.
        let rest = if self.exchange.gpus.is_some() { "the loss or a gradient" } else { "the loss" };
        Ok(rest.to_owned())
    }

    /// The first non-finite tensor in the forward pass of micro-batch `index` of the next step,
    /// which is batch `batch` of the loader.
    fn first_bad_activation(&self, index: u64, batch: u64) -> Result<Option<String>> {
        let batch = train_batch(self.batches.loader().batch(batch)?)?;
        let layers = self.model.config().num_hidden_layers;
        let mode = self.plan.streams().streams(self.done as u64, index, layers)[0];
        let options = AttentionOptions { mode, ..self.plan.objective().attention.clone() };
        let mut place = None;
        let mut observe = |seen: LayerAttention<'_>| {
            let named = [("queries", seen.q), ("keys", seen.k), ("values", seen.v)];
            for (name, tensor) in named {
                if place.is_none() && is_bad(tensor)? {
                    place = Some(format!("the {name} of layer {}", seen.layer));
                }
            }
            Ok(())
        };
        let hidden = self.model.forward_observed(batch.input(), &options, &mut observe)?;
        if place.is_none() && is_bad(&hidden)? {
            place = Some("the hidden states after the last layer".to_owned());
        }
        Ok(place)
    }
}

fn is_bad(tensor: &Tensor) -> Result<bool, KernelError> {
    Ok(!tensor.to_vec()?.iter().all(|value| value.is_finite()))
}
