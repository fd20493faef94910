//! RoPE scaling as `config.json` writes it.

use serde_json::{Value, json};
use ssa_kernels::ops::rope::RopeScaling;

use super::MOST_POSITIONS;
use super::keys::Keys;
use crate::{ModelError, Result};

/// Reads the object under `rope_scaling` or `rope_parameters`.
pub(super) fn from_json(keys: &Keys<'_>) -> Result<RopeScaling> {
    // Old files say `type`; where both stand, transformers lets `rope_type` win.
    let key = if keys.has("rope_type") { "rope_type" } else { "type" };
    match keys.text(key)? {
        None | Some("default") => Ok(RopeScaling::None),
        // Division of all positions by 1 changes nothing.
        Some("linear") if keys.number("factor")? == Some(1.0) => Ok(RopeScaling::None),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: keys.required("factor", Keys::number)?,
            low_freq_factor: keys.required("low_freq_factor", Keys::number)?,
            high_freq_factor: keys.required("high_freq_factor", Keys::number)?,
            original_max_position_embeddings: keys
                .required("original_max_position_embeddings", Keys::size)?,
        }),
        Some(_) => {
            Err(keys.error(key, "\"llama3\" or \"default\"; no other scaling is implemented"))
        }
    }
}

/// The object written under `rope_scaling`.
pub(super) fn to_json(scaling: &RopeScaling) -> Value {
    match scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            })
        }
    }
}

/// The object written under `rope_parameters`: scaling and theta in one.
pub(super) fn parameters(scaling: &RopeScaling, theta: f64) -> Value {
    let mut parameters = match to_json(scaling) {
        Value::Null => json!({ "rope_type": "default" }),
        scaling => scaling,
    };
    parameters["rope_theta"] = json!(theta);
    parameters
}

/// Refuses numbers that no frequency table can be made from.
pub(super) fn check(scaling: &RopeScaling, origin: &str) -> Result<()> {
    let RopeScaling::Llama3 {
        factor,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings,
    } = *scaling
    else {
        return Ok(());
    };
    let error = |key: &str, value: &dyn std::fmt::Display, expected: &str| {
        Err(ModelError::config(origin, format!("rope_scaling.{key}"), value, expected))
    };
    if !(factor.is_finite() && factor >= 1.0) {
        return error("factor", &factor, "a number of at least 1");
    }
    if !(low_freq_factor.is_finite() && low_freq_factor > 0.0) {
        return error("low_freq_factor", &low_freq_factor, "a positive number");
    }
    if !(high_freq_factor.is_finite() && high_freq_factor > low_freq_factor) {
        return error("high_freq_factor", &high_freq_factor, "a number above low_freq_factor");
    }
    let positions = original_max_position_embeddings;
    if positions == 0 {
        return error("original_max_position_embeddings", &0, "at least 1");
    }
    if positions > MOST_POSITIONS {
        let expected = format!("at most {MOST_POSITIONS}");
        return error("original_max_position_embeddings", &positions, &expected);
    }
    Ok(())
}
