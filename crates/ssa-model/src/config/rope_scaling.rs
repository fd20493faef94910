//! RoPE in `config.json`.
//!
//! transformers 4 has theta under `rope_theta` and the scaling under `rope_scaling`; transformers 5
//! has both under `rope_parameters`. A file may have all of these keys if they agree.

use serde_json::{Value, json};
use ssa_kernels::ops::rope::RopeScaling;

use super::MOST_POSITIONS;
use super::keys::Keys;
use crate::{ModelError, Result};

/// Default of `rope_theta`.
const DEFAULT_THETA: f64 = 10_000.0;

/// The objects that can contain a scaling.
const OBJECTS: [&str; 2] = ["rope_scaling", "rope_parameters"];

/// Reads theta and the scaling.
pub(super) fn from_json(keys: &Keys<'_>) -> Result<(f64, RopeScaling)> {
    let mut theta = keys.number("rope_theta")?;
    let mut scaling = None;
    for key in OBJECTS {
        let Some(inner) = keys.object(key)? else { continue };
        if inner.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
            return Err(inner.error("partial_rotary_factor", "1: RoPE turns whole heads"));
        }
        let inner_theta = inner.number("rope_theta")?;
        if let (Some(inner_theta), Some(theta)) = (inner_theta, theta)
            && inner_theta != theta
        {
            let expected = format!("{theta}, the value of the other key");
            return Err(inner.error("rope_theta", &expected));
        }
        theta = theta.or(inner_theta);
        let inner_scaling = scaling_from_json(&inner)?;
        if let (Some(inner_scaling), Some(scaling)) = (&inner_scaling, &scaling)
            && inner_scaling != scaling
        {
            let expected = format!("the same scaling as under {}", OBJECTS[0]);
            return Err(keys.error(key, &expected));
        }
        scaling = scaling.or(inner_scaling);
    }
    Ok((theta.unwrap_or(DEFAULT_THETA), scaling.unwrap_or(RopeScaling::None)))
}

/// Reads the scaling of an object; `None` if it has none.
fn scaling_from_json(keys: &Keys<'_>) -> Result<Option<RopeScaling>> {
    // Old files use `type`; if both are present, transformers uses `rope_type`.
    let key = if keys.has("rope_type") { "rope_type" } else { "type" };
    Ok(Some(match keys.text(key)? {
        None => return Ok(None),
        Some("default") => RopeScaling::None,
        Some("linear") => match keys.required("factor", Keys::number)? {
            // Dividing all positions by 1 changes nothing.
            1.0 => RopeScaling::None,
            factor => RopeScaling::Linear { factor },
        },
        Some("llama3") => RopeScaling::Llama3 {
            factor: keys.required("factor", Keys::number)?,
            low_freq_factor: keys.required("low_freq_factor", Keys::number)?,
            high_freq_factor: keys.required("high_freq_factor", Keys::number)?,
            original_max_position_embeddings: keys
                .required("original_max_position_embeddings", Keys::size)?,
        },
        Some(_) => {
            let expected = "\"default\", \"linear\" or \"llama3\"; no other scaling is implemented";
            return Err(keys.error(key, expected));
        }
    }))
}

/// The object written under `rope_scaling`.
pub(super) fn to_json(scaling: &RopeScaling) -> Value {
    match scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
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

/// Checks that the numbers define a frequency table.
pub(super) fn check(scaling: &RopeScaling, origin: &str) -> Result<()> {
    let error = |key: &str, value: &dyn std::fmt::Display, expected: &str| {
        Err(ModelError::config(origin, format!("rope_scaling.{key}"), value, expected))
    };
    let factor = match *scaling {
        RopeScaling::None => return Ok(()),
        RopeScaling::Linear { factor } | RopeScaling::Llama3 { factor, .. } => factor,
    };
    if !(factor.is_finite() && factor >= 1.0) {
        return error("factor", &factor, "a number of at least 1");
    }
    let RopeScaling::Llama3 {
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings,
        ..
    } = *scaling
    else {
        return Ok(());
    };
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
