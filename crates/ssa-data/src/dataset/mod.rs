//! The training and held-out data of a run: opened, split and packed into rows.

mod held_out;
mod tokenizer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use held_out::{HeldOut, HeldOutPart};
pub use tokenizer::common_tokenizer;

use crate::bits_per_byte::unigram_bits_per_byte;
use crate::input::read_documents;
use crate::mixture::Mixture;
use crate::packing::{PackOptions, PackedRows, Packing, Remainder, pack, pack_documents};
use crate::shard::{Corpus, Manifest, ManifestCheck};
use crate::snapshot::snapshot;
use crate::split::{Split, split};
use crate::token_source::{DocumentSplit, TokenSource};
use crate::{Result, Tokenizer};
use held_out::OpenPart;

/// Default held-out fraction of the training data.
pub const HELD_OUT_FRACTION: f64 = 0.05;

/// The source of the training data.
#[derive(Clone, Debug, PartialEq)]
pub enum TrainSource {
    /// The built-in text.
    BuiltIn,
    /// Text files and directories.
    Text(Vec<PathBuf>),
    /// Corpora of shards, each with its weight in the mixture.
    Corpora(Vec<(PathBuf, f64)>),
}

/// The source of the held-out data.
#[derive(Clone, Debug, PartialEq)]
pub enum HeldOutSource {
    /// A fraction of the training data, drawn with the seed and excluded from training.
    Share(f64),
    /// Text files and directories.
    Text(Vec<PathBuf>),
    /// Corpora of shards.
    Corpora(Vec<PathBuf>),
}

/// Which data to open and how to pack it.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetOptions {
    /// The training data.
    pub train: TrainSource,
    /// The held-out data.
    pub held_out: HeldOutSource,
    /// Seed of the held-out split and of the order of documents.
    pub seed: u64,
    /// How training documents are packed into rows. Held-out documents are always concatenated.
    pub packing: Packing,
    /// Tokens per row.
    pub sequence_length: usize,
    /// Maximum number of held-out tokens, rounded up to whole rows. Several corpora share it by
    /// weight.
    pub held_out_tokens: usize,
    /// Whether to verify the checksums of all shards, which reads every byte of them.
    pub verify_checksums: bool,
}

/// The data of a run.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The training data.
    pub train: Mixture,
    /// The name of each corpus of `train`, for messages.
    pub names: Vec<String>,
    /// The held-out data.
    pub held_out: HeldOut,
}

/// Training data before packing.
enum OpenTrain {
    Text { name: String, split: Split },
    Corpora(Vec<OpenCorpus>),
}

struct OpenCorpus {
    name: String,
    source: Arc<TokenSource>,
    weight: f64,
    /// Present if a part of the corpus is held out.
    split: Option<DocumentSplit>,
}

impl DatasetOptions {
    /// Returns options for the built-in text in rows of `sequence_length` tokens, with the default
    /// held-out fraction.
    pub fn built_in(sequence_length: usize) -> Self {
        Self {
            train: TrainSource::BuiltIn,
            held_out: HeldOutSource::Share(HELD_OUT_FRACTION),
            seed: 0,
            packing: Packing::Concat,
            sequence_length,
            held_out_tokens: usize::MAX,
            verify_checksums: false,
        }
    }

    /// Opens the data, splits it and packs both sides. For shards, only the indices are read unless
    /// checksums are verified.
    ///
    /// # Errors
    /// [`DataError`](crate::DataError) names the file, or reports that there is too little text.
    pub fn open(&self, tokenizer: &Tokenizer) -> Result<Dataset> {
        let open = self.open_train(tokenizer)?;
        let (train, names) = self.pack_train(&open, tokenizer)?;
        Ok(Dataset { train, names, held_out: self.pack_held_out(open, tokenizer)? })
    }

    /// Opens only the held-out data of [`open`](Self::open).
    ///
    /// # Errors
    /// Same as [`open`](Self::open).
    pub fn open_held_out(&self, tokenizer: &Tokenizer) -> Result<HeldOut> {
        self.pack_held_out(self.open_train(tokenizer)?, tokenizer)
    }

    fn open_train(&self, tokenizer: &Tokenizer) -> Result<OpenTrain> {
        let (name, documents) = match &self.train {
            TrainSource::Corpora(corpora) => {
                let open =
                    corpora.iter().map(|(path, weight)| self.open_one(path, *weight, tokenizer));
                return Ok(OpenTrain::Corpora(open.collect::<Result<_>>()?));
            }
            TrainSource::BuiltIn => ("built-in text".to_owned(), snapshot()?),
            TrainSource::Text(paths) => (list(paths), read_documents(paths)?),
        };
        let split = match &self.held_out {
            HeldOutSource::Share(fraction) => split(documents, *fraction, self.seed)?,
            HeldOutSource::Text(paths) => {
                Split { train: documents, held_out: read_documents(paths)? }
            }
            HeldOutSource::Corpora(_) => Split { train: documents, held_out: vec![] },
        };
        Ok(OpenTrain::Text { name, split })
    }

    fn open_one(&self, path: &Path, weight: f64, tokenizer: &Tokenizer) -> Result<OpenCorpus> {
        let source = open_corpus(path, tokenizer, self.verify_checksums)?;
        let split = match &self.held_out {
            HeldOutSource::Share(fraction) => Some(source.split(*fraction, self.seed)?),
            _ => None,
        };
        Ok(OpenCorpus { name: path.display().to_string(), source, weight, split })
    }

    fn pack_train(
        &self,
        open: &OpenTrain,
        tokenizer: &Tokenizer,
    ) -> Result<(Mixture, Vec<String>)> {
        let options = PackOptions {
            sequence_length: self.sequence_length,
            packing: self.packing,
            seed: self.seed,
            remainder: Remainder::Drop,
        };
        match open {
            OpenTrain::Text { name, split } => {
                let ids = tokenizer.encode_documents(&split.train)?;
                let rows = pack(&ids, tokenizer.eos(), &options)?;
                Ok((rows.into(), vec![name.clone()]))
            }
            OpenTrain::Corpora(corpora) => {
                let parts =
                    corpora.iter().map(|corpus| Ok((corpus.pack(&options)?, corpus.weight)));
                let names = corpora.iter().map(|corpus| corpus.name.clone()).collect();
                Ok((Mixture::new(parts.collect::<Result<_>>()?)?, names))
            }
        }
    }

    fn pack_held_out(&self, open: OpenTrain, tokenizer: &Tokenizer) -> Result<HeldOut> {
        let baseline_bits_per_byte = match (&open, &self.held_out, tokenizer) {
            (_, HeldOutSource::Corpora(_), _) => None,
            (OpenTrain::Text { split, .. }, _, Tokenizer::Bytes) => {
                Some(unigram_bits_per_byte(&split.train, &split.held_out))
            }
            _ => None,
        };
        let parts = match (&self.held_out, open) {
            (HeldOutSource::Corpora(paths), _) => self.open_parts(paths, tokenizer)?,
            (HeldOutSource::Text(paths), OpenTrain::Corpora(_)) => {
                vec![OpenPart::of_text(list(paths), &read_documents(paths)?, tokenizer)?]
            }
            (HeldOutSource::Text(paths), OpenTrain::Text { split, .. }) => {
                vec![OpenPart::of_text(list(paths), &split.held_out, tokenizer)?]
            }
            (HeldOutSource::Share(_), OpenTrain::Text { name, split }) => {
                vec![OpenPart::of_text(share_of(&name), &split.held_out, tokenizer)?]
            }
            (HeldOutSource::Share(_), OpenTrain::Corpora(corpora)) => {
                corpora.into_iter().filter_map(OpenCorpus::held_out).collect()
            }
        };
        let parts =
            held_out::pack_parts(parts, tokenizer, self.sequence_length, self.held_out_tokens)?;
        Ok(HeldOut { parts, baseline_bits_per_byte })
    }

    fn open_parts(&self, paths: &[PathBuf], tokenizer: &Tokenizer) -> Result<Vec<OpenPart>> {
        let open = |path: &PathBuf| OpenPart::of_corpus(path, tokenizer, self.verify_checksums);
        paths.iter().map(open).collect()
    }
}

impl OpenCorpus {
    fn pack(&self, options: &PackOptions) -> Result<PackedRows> {
        let source = Arc::clone(&self.source);
        match &self.split {
            Some(split) => pack_documents(source, &split.train, options),
            None => {
                let all = source.all_documents()?;
                pack_documents(source, &all, options)
            }
        }
    }

    fn held_out(self) -> Option<OpenPart> {
        let Self { name, source, weight, split } = self;
        let documents = split?.held_out;
        Some(OpenPart { name: share_of(&name), source, documents, weight, bytes_per_target: None })
    }
}

/// Opens a corpus of shards and checks it against its manifest, if it has one.
fn open_corpus(
    path: &Path,
    tokenizer: &Tokenizer,
    verify_checksums: bool,
) -> Result<Arc<TokenSource>> {
    if let Some(manifest) = Manifest::read(path)? {
        let check =
            if verify_checksums { ManifestCheck::Everything } else { ManifestCheck::Indices };
        manifest.check(path, check)?;
    }
    let corpus = Corpus::open(path)?;
    Ok(Arc::new(TokenSource::shards(corpus, tokenizer.vocab_size(), tokenizer.eos())))
}

/// The name of the held-out part of some data.
fn share_of(name: &str) -> String {
    format!("held-out part of {name}")
}

/// Formats the first paths and the number of the others.
fn list(paths: &[PathBuf]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = paths.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
    let more = match paths.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    shown.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_of_paths_are_cut() {
        let paths = |count: usize| (0..count).map(|n| PathBuf::from(n.to_string())).collect();
        let paths: Vec<Vec<PathBuf>> = vec![paths(1), paths(3), paths(5)];
        assert_eq!([0, 1, 2].map(|at| list(&paths[at])), ["0", "0, 1, 2", "0, 1, 2 and 2 more"]);
    }
}
