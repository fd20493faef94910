//! A corpus with its weight in a mixture.

use std::path::PathBuf;

use toml::{Table, Value};

use super::schema::Leaf;

/// A corpus of a mixture, written `{ path = "shards/web", weight = 0.7 }`, or as a bare path for a
/// weight of 1.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedCorpus {
    /// A directory of shards, or the common path of a pair of files.
    pub path: PathBuf,
    /// Share of the rows drawn, relative to the other weights: a positive number.
    pub weight: f64,
}

impl Leaf for WeightedCorpus {
    fn expected() -> String {
        "a path, or { path = \"DIR\", weight = 1.0 } with a positive weight".to_owned()
    }

    fn from_toml(value: &Value) -> Option<Self> {
        if let Some(path) = value.as_str() {
            return Some(Self { path: path.into(), weight: 1.0 });
        }
        let table = value.as_table()?;
        if table.keys().any(|key| !["path", "weight"].contains(&key.as_str())) {
            return None;
        }
        let path = table.get("path")?.as_str()?.into();
        let weight = table.get("weight").map_or(Some(1.0), f64::from_toml)?;
        (weight > 0.0).then_some(Self { path, weight })
    }

    fn to_toml(&self) -> Value {
        let path = ("path".to_owned(), Value::String(self.path.display().to_string()));
        Value::Table(Table::from_iter([path, ("weight".to_owned(), Value::Float(self.weight))]))
    }
}
