//! The training configuration: reading, overriding, writing and documenting it.

mod compare;
mod data;
mod error;
mod grid;
mod leaves;
mod monitoring;
mod overrides;
mod paths;
mod reference;
mod rope_scaling;
mod schema;
mod sections;
#[cfg(test)]
mod tests;
mod weighted_corpus;

use std::path::Path;

use toml::Value;

pub use compare::Difference;
pub use error::ConfigError;
pub use grid::{Grid, GridRun};
pub use monitoring::MonitoringSection;
pub use overrides::apply_overrides;
pub use reference::reference_page;
pub use schema::Key;
pub use sections::{
    AlignmentInput, CheckpointSection, DataSection, EvaluationSection, ModelSection,
    ObjectiveSection, OptimizerSection, RopeScalingSection, RopeType, RunSection, TrainConfig,
    TrainingSection,
};
pub use weighted_corpus::WeightedCorpus;

use schema::{KeyContext, Setting, parent};

impl TrainConfig {
    /// Reads a TOML file and applies `key=value` overrides to it.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read or is not TOML, or if a key or type in the file
    /// or an override is wrong. [`TrainPlan::new`](crate::TrainPlan::new) checks the values.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        Ok(Self::load_with_keys(path, overrides)?.0)
    }

    /// [`load`](Self::load) with the keys that the file and the overrides give.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn load_with_keys(
        path: &Path,
        overrides: &[String],
    ) -> Result<(Self, toml::Table), ConfigError> {
        let origin = path.display().to_string();
        let text = ssa_files::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let table = table(&text, &origin, overrides)?;
        Ok((Self::from_table(table.clone(), &origin)?, table))
    }

    /// Like [`load`](Self::load), but from a string; errors name `origin` instead of the file.
    ///
    /// # Errors
    /// Same as [`load`](Self::load).
    pub fn parse(text: &str, origin: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        Self::from_table(table(text, origin, overrides)?, origin)
    }

    /// Every key and section, in the order of the reference page.
    pub fn keys() -> Vec<Key> {
        let mut keys = Vec::new();
        Self::describe("", "", None, &mut keys);
        keys
    }

    /// Writes the configuration as TOML, with every key that has a value. Reading it gives the same
    /// configuration.
    pub fn to_toml(&self) -> String {
        let mut values = Vec::new();
        self.write("", &mut values);
        let mut text = String::new();
        let mut section = "";
        for (name, value) in &values {
            if parent(name) != section {
                section = parent(name);
                text.push_str(&format!("{}[{section}]\n", if text.is_empty() { "" } else { "\n" }));
            }
            let field = &name[section.len() + 1..];
            text.push_str(&format!("{field} = {value}\n"));
        }
        text
    }

    fn from_table(table: toml::Table, origin: &str) -> Result<Self, ConfigError> {
        let keys = Self::keys();
        Self::read(&Value::Table(table), &KeyContext { origin, key: String::new(), keys: &keys })
    }
}

/// The keys that a text and overrides give.
fn table(text: &str, origin: &str, overrides: &[String]) -> Result<toml::Table, ConfigError> {
    let mut table: toml::Table =
        text.parse().map_err(|error| syntax_error(text, origin, &error))?;
    // The file is checked before overrides can cover up a mistake in it.
    TrainConfig::from_table(table.clone(), origin)?;
    apply_overrides(&mut table, overrides)?;
    Ok(table)
}

fn syntax_error(text: &str, origin: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    ConfigError::Syntax {
        origin: origin.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: error.message().to_owned(),
    }
}
