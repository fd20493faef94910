//! The data that a configuration names.

use std::path::PathBuf;

use ssa_data::{
    DatasetOptions, HeldOutSource, Tokenizer, TrainSource, common_tokenizer, load_tokenizer,
};
use toml::{Table, Value};

use super::error::ConfigError;
use super::schema::Leaf;
use super::sections::{DataSection, TrainConfig};

/// A corpus of a mixture, written `{ path = "shards/web", weight = 0.7 }`, or as a path alone for a
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

impl DataSection {
    /// Loads the tokenizer of all data: the one that the corpora were made with, else
    /// `data.tokenizer`, else bytes.
    ///
    /// # Errors
    /// [`ConfigError::Data`] names the file that cannot be loaded, or the corpora whose tokenizers
    /// differ.
    pub fn load_tokenizer(&self) -> Result<Tokenizer, ConfigError> {
        let named = self.tokenizer.as_deref().map(|path| load_tokenizer(path, None)).transpose()?;
        let named = named.map(|tokenizer| ("data.tokenizer".to_owned(), tokenizer));
        let corpora = self.corpora.iter().map(|corpus| &corpus.path).chain(&self.valid_corpora);
        Ok(common_tokenizer(corpora, named)?.unwrap_or(Tokenizer::Bytes))
    }
}

impl TrainConfig {
    /// The data to train on and to measure on, and how to pack it.
    pub fn dataset_options(&self) -> DatasetOptions {
        let data = &self.data;
        let train = match (data.corpora.is_empty(), data.paths.is_empty()) {
            (false, _) => {
                let corpora = data.corpora.iter();
                TrainSource::Corpora(corpora.map(|one| (one.path.clone(), one.weight)).collect())
            }
            (true, false) => TrainSource::Text(data.paths.clone()),
            (true, true) => TrainSource::BuiltIn,
        };
        let held_out = match (data.valid_corpora.is_empty(), data.valid_paths.is_empty()) {
            (false, _) => HeldOutSource::Corpora(data.valid_corpora.clone()),
            (true, false) => HeldOutSource::Text(data.valid_paths.clone()),
            (true, true) => HeldOutSource::Share(data.held_out_fraction),
        };
        DatasetOptions {
            train,
            held_out,
            seed: self.run.seed,
            packing: data.packing,
            sequence_length: data.sequence_length,
            held_out_tokens: self.evaluation.tokens,
            verify_checksums: data.verify_checksums,
        }
    }
}
