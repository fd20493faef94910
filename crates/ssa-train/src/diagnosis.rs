//! Where numbers went bad.

use std::fmt;

use ssa_data::RowPlace;
use ssa_kernels::{KernelError, Tensor};
use ssa_model::{AttentionOptions, LayerAttention};

use crate::{Result, Trainer};

/// Rows named in a message before the rest is counted.
const ROWS_SHOWN: usize = 8;

/// A step whose loss or gradient is not a number.
#[derive(Clone, Debug, PartialEq)]
pub struct BadStep {
    /// The step, counted from 1.
    pub step: usize,
    /// What is not finite.
    pub what: &'static str,
    /// Its value.
    pub value: f64,
    /// Where its rows come from.
    pub rows: Vec<RowPlace>,
}

/// Why a run cannot go on: a bad step that neither passing over rows nor going back to a checkpoint
/// gets past.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// The last bad step.
    pub bad: BadStep,
    /// Bad steps in a row.
    pub in_row: usize,
    /// The checkpoint gone back to before; none if there is none.
    pub rolled_back_to: Option<usize>,
    /// The first bad value in the order of computation.
    pub place: String,
}

impl fmt::Display for BadStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {} is {} on {}", self.step, self.what, self.value, row_list(&self.rows))
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let back = match self.rolled_back_to {
            Some(step) => format!("also after going back to the checkpoint of step {step}"),
            None => "and there is no checkpoint to go back to".to_owned(),
        };
        write!(
            f,
            "{}; {} bad steps in a row, {back}; the first bad value is in {}. The weights are those before the bad steps",
            self.bad, self.in_row, self.place
        )
    }
}

fn row_list(rows: &[RowPlace]) -> String {
    let shown: Vec<String> = rows.iter().take(ROWS_SHOWN).map(name).collect();
    let more = match rows.len().saturating_sub(ROWS_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("row{} {}{more}", if rows.len() == 1 { "" } else { "s" }, shown.join(", "))
}

/// A row by its number, and where there are several corpora by that of the corpus. The first corpus
/// has number 0, as rows have.
fn name(place: &RowPlace) -> String {
    match place.corpus {
        0 => place.row.to_string(),
        corpus => format!("{} of corpus {corpus}", place.row),
    }
}

impl Trainer {
    /// Looks for the first bad value of the step that has just failed: in the weights, in the
    /// forward of each micro-batch layer by layer, in the gradients from the head down.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub(crate) fn first_bad_value(&self) -> Result<String> {
        for (name, tensor) in self.model.parameters().named() {
            if is_bad(tensor)? {
                return Ok(format!("the weight {name}"));
            }
        }
        for (index, batch) in (0..).zip(self.indices()) {
            if let Some(place) = self.first_bad_activation(index, batch)? {
                let rows = self.batches.loader().row_places(batch);
                return Ok(format!("{place} of micro-batch {index} ({})", row_list(&rows)));
            }
        }
        for (name, tensor) in self.grads.named().into_iter().rev() {
            if is_bad(tensor)? {
                return Ok(format!("the gradient of {name}"));
            }
        }
        Ok("the loss".to_owned())
    }

    /// The first bad tensor in the forward of micro-batch `index` of the next step, which is batch
    /// `batch` of the loader.
    fn first_bad_activation(&self, index: u64, batch: u64) -> Result<Option<String>> {
        let batch = crate::trainer::train_batch(self.batches.loader().batch(batch)?)?;
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
