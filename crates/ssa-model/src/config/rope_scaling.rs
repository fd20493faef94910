//! RoPE in `config.json`.
//!
//! transformers 4 has theta under `rope_theta` and the scaling under `rope_scaling`; transformers 5
//! has both under `rope_parameters`. A file may have all of these keys if they agree.

use serde_json::{Value, json};
use ssa_kernels::ops::rope::{RopeScaling, Yarn};

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
        let inner_scaling = scaling_from_json(&inner, keys)?;
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

/// Reads the scaling of an object of the configuration `outer`; `None` if it has none.
fn scaling_from_json(keys: &Keys<'_>, outer: &Keys<'_>) -> Result<Option<RopeScaling>> {
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
        Some("yarn") => RopeScaling::Yarn(yarn_from_json(keys, outer)?),
        Some(_) => {
            let expected = "\"default\", \"linear\", \"llama3\" or \"yarn\"; no other scaling is \
                            implemented";
            return Err(keys.error(key, expected));
        }
    }))
}

/// Reads what transformers reads, with its defaults.
fn yarn_from_json(keys: &Keys<'_>, outer: &Keys<'_>) -> Result<Yarn> {
    let factor = keys.required("factor", Keys::number)?;
    // transformers takes zero for absent.
    let given = |key: &str| keys.number(key).map(|number| number.filter(|&it| it != 0.0));
    let attention_factor =
        match (keys.number("attention_factor")?, given("mscale")?, given("mscale_all_dim")?) {
            (Some(attention_factor), ..) => attention_factor,
            (None, Some(mscale), Some(all)) => {
                Yarn::mscale(factor, mscale) / Yarn::mscale(factor, all)
            }
            (None, ..) => Yarn::default_attention_factor(factor),
        };
    let positions = "original_max_position_embeddings";
    Ok(Yarn {
        factor,
        attention_factor,
        beta_fast: given("beta_fast")?.unwrap_or(32.0),
        beta_slow: given("beta_slow")?.unwrap_or(1.0),
        original_max_position_embeddings: match keys.size(positions)? {
            Some(positions) => positions,
            None => outer.required("max_position_embeddings", Keys::size)?,
        },
        truncate: keys.flag("truncate")?.unwrap_or(true),
    })
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
        RopeScaling::Yarn(yarn) => json!({
            "rope_type": "yarn",
            "factor": yarn.factor,
            "attention_factor": yarn.attention_factor,
            "beta_fast": yarn.beta_fast,
            "beta_slow": yarn.beta_slow,
            "original_max_position_embeddings": yarn.original_max_position_embeddings,
            "truncate": yarn.truncate,
        }),
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

/// Checks that the numbers define a table of angles.
pub(super) fn check(scaling: &RopeScaling, theta: f64, origin: &str) -> Result<()> {
    let error = |key: &str, value: &dyn std::fmt::Display, expected: &str| {
        Err(ModelError::config(origin, format!("rope_scaling.{key}"), value, expected))
    };
    let positive = |number: f64| number.is_finite() && number > 0.0;
    let (factor, positions) = match *scaling {
        RopeScaling::None => return Ok(()),
        RopeScaling::Linear { factor } => (factor, None),
        RopeScaling::Llama3 { factor, original_max_position_embeddings: positions, .. } => {
            (factor, Some(positions))
        }
        RopeScaling::Yarn(ref yarn) => (yarn.factor, Some(yarn.original_max_position_embeddings)),
    };
    if !(factor.is_finite() && factor >= 1.0) {
        return error("factor", &factor, "a number of at least 1");
    }
    match *scaling {
        RopeScaling::None | RopeScaling::Linear { .. } => {}
        RopeScaling::Llama3 { low_freq_factor, high_freq_factor, .. } => {
            if !positive(low_freq_factor) {
                return error("low_freq_factor", &low_freq_factor, "a positive number");
            }
            if !(high_freq_factor.is_finite() && high_freq_factor > low_freq_factor) {
                let expected = "a number above low_freq_factor";
                return error("high_freq_factor", &high_freq_factor, expected);
            }
        }
        RopeScaling::Yarn(ref yarn) => {
            if !positive(yarn.attention_factor) {
                return error("attention_factor", &yarn.attention_factor, "a positive number");
            }
            if !positive(yarn.beta_slow) {
                return error("beta_slow", &yarn.beta_slow, "a positive number");
            }
            if !(yarn.beta_fast.is_finite() && yarn.beta_fast > yarn.beta_slow) {
                return error("beta_fast", &yarn.beta_fast, "a number above beta_slow");
            }
            if theta <= 1.0 {
                let expected = "a number above 1: yarn needs frequencies that fall";
                return Err(ModelError::config(origin, "rope_theta", theta, expected));
            }
        }
    }
    if positions == Some(0) {
        return error("original_max_position_embeddings", &0, "at least 1");
    }
    if let Some(positions) = positions
        && positions > MOST_POSITIONS
    {
        let expected = format!("at most {MOST_POSITIONS}");
        return error("original_max_position_embeddings", &positions, &expected);
    }
    Ok(())
}
