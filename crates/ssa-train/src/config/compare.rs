//! Differences between two configurations.

use std::fmt;

use toml::Value;

use super::schema::{Setting, hint, key_named};
use super::{ConfigError, TrainConfig};

/// A key with different values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The dotted key.
    pub key: String,
    /// The new value as TOML; `None` if absent.
    pub new: Option<String>,
    /// The old value.
    pub old: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
        write!(f, "{} is {}, was {}", self.key, value(&self.new), value(&self.old))
    }
}

impl TrainConfig {
    /// The keys whose values differ from an older configuration, in the order of the reference
    /// page.
    pub fn differences(&self, old: &Self) -> Vec<Difference> {
        let [new, old] = [self, old].map(|config| {
            let mut values = Vec::new();
            config.write("", &mut values);
            values
        });
        let find = |values: &[(String, Value)], key: &str| {
            values.iter().find(|(name, _)| name == key).map(|(_, value)| value.to_string())
        };
        let compare = |key: String| {
            let (new, old) = (find(&new, &key), find(&old, &key));
            (new != old).then_some(Difference { key, new, old })
        };
        Self::keys()
            .into_iter()
            .filter(|key| key.expected.is_some())
            .filter_map(|key| compare(key.name))
            .collect()
    }

    /// Looks up a key by its name without the section, or by its name in other programs: both
    /// `learning_rate` and `lr` give `optimizer.learning_rate`.
    pub fn key_named(name: &str) -> Option<String> {
        key_named(name, &Self::keys())
    }

    /// Checks that each name is a key.
    ///
    /// # Errors
    /// [`ConfigError::UnknownKey`] with the flag that gave the name.
    pub fn check_keys(names: &[String], flag: &str) -> Result<(), ConfigError> {
        let keys = Self::keys();
        let known =
            |name: &String| keys.iter().any(|key| key.name == *name && key.expected.is_some());
        match names.iter().find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => Err(ConfigError::UnknownKey {
                origin: format!("{flag} {name}"),
                key: name.clone(),
                hint: hint(name, &keys),
            }),
        }
    }
}
