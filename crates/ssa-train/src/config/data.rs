//! The data in a configuration.

use ssa_data::{
    DatasetOptions, HeldOutSource, Tokenizer, TrainSource, common_tokenizer, load_tokenizer,
};

use super::error::ConfigError;
use super::sections::{DataSection, TrainConfig};

impl DataSection {
    /// Loads the tokenizer of all data: the one of the corpora, else `data.tokenizer`, else bytes.
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
    /// The data to train and evaluate on, and how to pack it.
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
