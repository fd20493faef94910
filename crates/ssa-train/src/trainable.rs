//! Which parameters a run trains, and which are frozen.

use std::collections::BTreeSet;

use ssa_model::{ModelConfig, parameter_shapes};

use crate::config::{ConfigError, OptimizerSection};

/// The parameters that a run trains. Frozen ones have neither gradients nor moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trainable {
    names: BTreeSet<String>,
    count: u64,
    all: u64,
}

impl Trainable {
    /// All parameters of a model.
    pub fn all(model: &ModelConfig) -> Self {
        Self::of(model, |_| true)
    }

    /// The parameters that match a pattern of `trainable`, or all if that is empty, and none of
    /// `frozen`. A pattern matches whole parts of a name between its dots: `q_proj` or `layers.0`.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for a pattern that matches nothing, or if nothing is left to train.
    pub(crate) fn new(
        settings: &OptimizerSection,
        model: &ModelConfig,
    ) -> Result<Self, ConfigError> {
        let OptimizerSection { trainable, frozen, .. } = settings;
        check_patterns("optimizer.trainable", trainable, model)?;
        check_patterns("optimizer.frozen", frozen, model)?;
        let any = |patterns: &[String], name: &str| patterns.iter().any(|it| matches(it, name));
        let chosen = Self::of(model, |name| {
            (trainable.is_empty() || any(trainable, name)) && !any(frozen, name)
        });
        if chosen.names.is_empty() {
            return Err(ConfigError::Value {
                key: "optimizer.frozen".to_owned(),
                value: list(frozen),
                expected: "patterns that leave a parameter to train".to_owned(),
            });
        }
        Ok(chosen)
    }

    fn of(model: &ModelConfig, is_chosen: impl Fn(&str) -> bool) -> Self {
        let mut chosen = Self { names: BTreeSet::new(), count: 0, all: 0 };
        for (name, shape) in parameter_shapes(model) {
            let count: u64 = shape.iter().map(|&size| size as u64).product();
            chosen.all += count;
            if is_chosen(&name) {
                chosen.count += count;
                chosen.names.insert(name);
            }
        }
        chosen
    }

    /// Whether a parameter is trained.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Number of parameters that are trained, counted by element.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether no parameter is frozen.
    pub fn is_all(&self) -> bool {
        self.count == self.all
    }
}

fn check_patterns(key: &str, patterns: &[String], model: &ModelConfig) -> Result<(), ConfigError> {
    let shapes = parameter_shapes(model);
    let matches_none = |pattern: &&String| !shapes.iter().any(|(name, _)| matches(pattern, name));
    let Some(pattern) = patterns.iter().find(matches_none) else { return Ok(()) };
    Err(ConfigError::Value {
        key: key.to_owned(),
        value: list(patterns),
        expected: format!(
            "patterns that match parameters, and \"{pattern}\" matches none\n\
             hint: name whole parts of a parameter's name, such as \"q_proj\", \"mlp\", \
             \"layers.0\" or \"embed_tokens\""
        ),
    })
}

/// Whether the parts of a pattern are parts of a name, one after another.
fn matches(pattern: &str, name: &str) -> bool {
    format!(".{name}.").contains(&format!(".{pattern}."))
}

fn list(patterns: &[String]) -> String {
    format!("{patterns:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TrainConfig, TrainPlan};

    fn chosen(trainable: &[&str], frozen: &[&str]) -> Result<Trainable, ConfigError> {
        let mut config = TrainConfig::default();
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        (config.optimizer.trainable, config.optimizer.frozen) = (owned(trainable), owned(frozen));
        TrainPlan::new(config).map(|plan| plan.trainable().clone())
    }

    #[test]
    fn patterns_match_whole_parts_of_names() {
        for (pattern, name, expected) in [
            ("q_proj", "model.layers.0.self_attn.q_proj.weight", true),
            ("q_proj", "model.layers.0.self_attn.q_proj.bias", true),
            ("proj", "model.layers.0.self_attn.q_proj.weight", false),
            ("norm", "model.norm.weight", true),
            ("norm", "model.layers.0.self_attn.q_norm.weight", false),
            ("layers.1", "model.layers.1.mlp.up_proj.weight", true),
            ("layers.1", "model.layers.10.mlp.up_proj.weight", false),
            ("", "model.norm.weight", false),
            ("model.norm.weight", "model.norm.weight", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_trainable_and_not_frozen_is_trained() {
        assert!(chosen(&[], &[]).unwrap().is_all());
        let some = chosen(&["self_attn"], &["v_proj", "o_proj"]).unwrap();
        let contains = |name: &str| some.contains(&format!("model.layers.0.self_attn.{name}"));
        assert!(contains("q_proj.weight") && contains("g_proj.weight"));
        assert!(!contains("v_proj.weight") && !some.contains("model.norm.weight"));
        assert!(some.count() < chosen(&["self_attn"], &[]).unwrap().count());
    }

    #[test]
    fn patterns_that_match_nothing_are_refused() {
        let error = |trainable: &[&str], frozen: &[&str]| {
            chosen(trainable, frozen).unwrap_err().to_string()
        };
        let message = error(&["q_proj", "q_prog"], &[]);
        let expected = "`optimizer.trainable` is [\"q_proj\", \"q_prog\"], expected patterns";
        assert!(message.starts_with(expected), "{message}");
        assert!(message.contains("\"q_prog\" matches none\nhint: name whole parts"), "{message}");
        assert!(error(&[], &["lm_head"]).contains("`optimizer.frozen` is [\"lm_head\"]"));
        assert!(error(&["norm"], &["model"]).contains("leave a parameter to train"));
    }
}
