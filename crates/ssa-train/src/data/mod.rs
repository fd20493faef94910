//! Everything that a run trains on and is measured on.

use std::path::Path;
use std::sync::Arc;

use ssa_data::{
    Corpus, Document, DocumentSplit, Manifest, ManifestCheck, Mixture, PackOptions, PackedRows,
    Packing, Remainder, Split, TokenSource, Tokenizer, pack_documents, read_documents, text_bytes,
    unigram_bits_per_byte,
};

use crate::{Result, TrainPlan};

/// The data of a run, open and packed.
#[derive(Clone, Debug)]
pub struct RunData {
    /// What to train on.
    pub train: Mixture,
    /// What each corpus of `train` is called, for people.
    pub names: Vec<String>,
    /// What to measure on.
    pub held_out: HeldOutData,
}

/// What a run does not train on.
#[derive(Clone, Debug)]
pub struct HeldOutData {
    /// At least one part, for each corpus one.
    pub parts: Vec<HeldOutRows>,
    /// Bits per byte of the held-out text if every byte is predicted by its frequency in the
    /// training text alone; none for corpora and for tokens other than bytes.
    pub baseline_bits_per_byte: Option<f64>,
}

/// Rows that are not trained on.
#[derive(Clone, Debug)]
pub struct HeldOutRows {
    /// Where they come from, for people.
    pub name: String,
    /// Rows of [`Packing::Concat`]: no more than `evaluation.tokens` asks for.
    pub rows: PackedRows,
    /// Bytes of text for every target token, the end-of-document tokens included.
    pub bytes_per_target: f64,
}

/// Tokens that are decoded to learn how many bytes of text a token stands for.
const DECODED_TOKENS: usize = 1 << 22;

/// What the configuration names to train on: text or corpora.
enum Sources {
    Text(Split),
    Corpora(Vec<OpenCorpus>),
}

struct OpenCorpus {
    name: String,
    source: Arc<TokenSource>,
    weight: f64,
    /// Without other text to evaluate on.
    split: Option<DocumentSplit>,
}

/// What is held out, before it is packed.
struct HeldOut {
    name: String,
    source: Arc<TokenSource>,
    documents: Vec<u32>,
    weight: f64,
    /// Known for text; corpora are decoded.
    bytes_per_target: Option<f64>,
}

impl TrainPlan {
    /// Opens the data that the configuration names and packs it into rows. Of shards only the
    /// indices are read, unless their checksums are to be verified.
    ///
    /// # Errors
    /// [`TrainError::Data`](crate::TrainError::Data) names the file, or says that there is too
    /// little text.
    pub fn open_data(&self) -> Result<RunData> {
        let sources = self.open_sources()?;
        let (train, names) = match &sources {
            Sources::Text(text) => {
                (self.training_rows(&text.train)?.into(), vec!["text".to_owned()])
            }
            Sources::Corpora(corpora) => {
                let parts =
                    corpora.iter().map(|corpus| Ok((self.pack_corpus(corpus)?, corpus.weight)));
                let names = corpora.iter().map(|corpus| corpus.name.clone()).collect();
                (Mixture::new(parts.collect::<Result<_>>()?)?, names)
            }
        };
        Ok(RunData { train, names, held_out: self.pack_held_out(sources)? })
    }

    /// The part of [`open_data`](Self::open_data) that is not trained on, alone.
    ///
    /// # Errors
    /// As for [`open_data`](Self::open_data).
    pub fn open_held_out(&self) -> Result<HeldOutData> {
        self.pack_held_out(self.open_sources()?)
    }

    fn open_sources(&self) -> Result<Sources> {
        let data = self.data();
        if data.corpora.is_empty() {
            return Ok(Sources::Text(self.text()?));
        }
        let splits = data.valid_corpora.is_empty() && data.valid_paths.is_empty();
        let corpora = data.corpora.iter().map(|corpus| {
            let source = self.open_corpus(&corpus.path)?;
            let split =
                splits.then(|| source.split(data.held_out_fraction, self.seed())).transpose()?;
            Ok(OpenCorpus {
                name: corpus.path.display().to_string(),
                source,
                weight: corpus.weight,
                split,
            })
        });
        Ok(Sources::Corpora(corpora.collect::<Result<_>>()?))
    }

    fn open_corpus(&self, path: &Path) -> Result<Arc<TokenSource>> {
        if let Some(manifest) = Manifest::read(path)? {
            let verify = self.data().verify_checksums;
            manifest.check(
                path,
                if verify { ManifestCheck::Everything } else { ManifestCheck::Indices },
            )?;
        }
        let tokenizer = self.tokenizer();
        Ok(Arc::new(TokenSource::shards(
            Corpus::open(path)?,
            tokenizer.vocab_size(),
            tokenizer.eos(),
        )))
    }

    fn pack_corpus(&self, corpus: &OpenCorpus) -> Result<PackedRows> {
        let source = Arc::clone(&corpus.source);
        Ok(match &corpus.split {
            Some(split) => pack_documents(source, &split.train, &self.training_options())?,
            None => {
                let all = source.all_documents()?;
                pack_documents(source, &all, &self.training_options())?
            }
        })
    }

    /// Packs what is held out of `sources`, or what the configuration names instead.
    fn pack_held_out(&self, sources: Sources) -> Result<HeldOutData> {
        let data = self.data();
        let mut baseline_bits_per_byte = None;
        let parts: Vec<HeldOut> = if !data.valid_corpora.is_empty() {
            data.valid_corpora.iter().map(|path| self.open_valid(path)).collect::<Result<_>>()?
        } else {
            match sources {
                Sources::Text(text) => {
                    if matches!(self.tokenizer(), Tokenizer::Bytes) {
                        baseline_bits_per_byte =
                            Some(unigram_bits_per_byte(&text.train, &text.held_out));
                    }
                    vec![self.held_out_text(&text.held_out)?]
                }
                Sources::Corpora(_) if !data.valid_paths.is_empty() => {
                    vec![self.held_out_text(&read_documents(&data.valid_paths)?)?]
                }
                Sources::Corpora(corpora) => {
                    corpora.into_iter().filter_map(OpenCorpus::held_out).collect()
                }
            }
        };
        let total: f64 = parts.iter().map(|part| part.weight).sum();
        let parts =
            parts.into_iter().map(|part| self.pack_part(part, total)).collect::<Result<_>>()?;
        Ok(HeldOutData { parts, baseline_bits_per_byte })
    }

    fn open_valid(&self, path: &Path) -> Result<HeldOut> {
        let source = self.open_corpus(path)?;
        let documents = source.all_documents()?;
        let name = path.display().to_string();
        Ok(HeldOut { name, source, documents, weight: 1.0, bytes_per_target: None })
    }

    fn held_out_text(&self, documents: &[Document]) -> Result<HeldOut> {
        let ids = self.tokenizer().encode_documents(documents)?;
        // The first token of a document is no target, its end is one.
        let targets: usize = ids.iter().map(Vec::len).sum();
        let source = TokenSource::in_memory(&ids, self.tokenizer().eos());
        Ok(HeldOut {
            name: "held-out text".to_owned(),
            documents: source.all_documents()?,
            source: Arc::new(source),
            weight: 1.0,
            bytes_per_target: Some(text_bytes(documents) as f64 / targets as f64),
        })
    }

    /// The rows to measure on: the part's share of `evaluation.tokens`.
    fn pack_part(&self, part: HeldOut, total_weight: f64) -> Result<HeldOutRows> {
        let options = PackOptions {
            packing: Packing::Concat,
            // Every row is evaluated, or a sample that should not depend on the run more than the
            // split does.
            seed: 0,
            remainder: Remainder::Pad,
            ..self.training_options()
        };
        let bytes_per_target = match part.bytes_per_target {
            Some(known) => known,
            None => {
                part.source.bytes_per_target(&part.documents, self.tokenizer(), DECODED_TOKENS)?
            }
        };
        let tokens = self.config().evaluation.tokens as f64 * part.weight / total_weight;
        let rows = pack_documents(part.source, &part.documents, &options)?;
        let rows = rows.first((tokens / self.sequence_length() as f64).ceil() as usize);
        Ok(HeldOutRows { name: part.name, rows, bytes_per_target })
    }
}

impl OpenCorpus {
    fn held_out(self) -> Option<HeldOut> {
        let Self { name, source, weight, split } = self;
        let documents = split?.held_out;
        Some(HeldOut { name, source, documents, weight, bytes_per_target: None })
    }
}

#[cfg(test)]
mod tests;
