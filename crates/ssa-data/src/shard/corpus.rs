//! All shards of a corpus as one list of documents.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::manifest::{Manifest, Part, ShardCount, manifest_paths};
use super::{ShardReader, TokenizerIdentity, Tokens};
use crate::tokenizer::TOKENIZER_JSON;
use crate::{DataError, Result, Tokenizer};

/// The documents of all shards of a directory, or of one pair of files, numbered from 0.
#[derive(Debug)]
pub struct Corpus {
    path: PathBuf,
    manifests: Vec<Manifest>,
    shards: Vec<ShardReader>,
    /// Number of documents before each shard.
    starts: Vec<usize>,
}

impl Corpus {
    /// Opens a directory with shards (in the order of their names), or one pair named by either of its files
    /// or by their common path without extension.
    ///
    /// If the directory has a manifest, the shards must be those it lists, of the sizes it lists. (Sums are
    /// not computed: that takes as long as reading everything, see [`verify`](crate::verify).)
    ///
    /// # Errors
    /// What [`ShardReader::open`] reports; [`DataError::NoShards`] for a directory without an index;
    /// [`DataError::BadManifest`] if a manifest is damaged, unfinished, one of several that are not all there,
    /// or at odds with the shards.
    pub fn open(path: &Path) -> Result<Self> {
        let (manifests, shards) = if path.is_dir() {
            let manifests = read_manifests(path)?;
            let shards = open_directory(path)?;
            check_shards(path, &manifests, &shards)?;
            (manifests, shards)
        } else {
            (Vec::new(), vec![ShardReader::open(path)?])
        };
        let starts = shards
            .iter()
            .scan(0, |next, shard| {
                let start = *next;
                *next += shard.documents();
                Some(start)
            })
            .collect();
        Ok(Self { path: path.to_owned(), manifests, shards, starts })
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The manifests: one, or one for each machine that prepared a part, or none if another program made the
    /// shards.
    pub fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }

    /// What made the tokens, if a manifest says so.
    pub fn tokenizer_identity(&self) -> Option<&TokenizerIdentity> {
        self.manifests.first().map(|manifest| &manifest.tokenizer)
    }

    /// The tokenizer that made the tokens, if a manifest says so.
    ///
    /// # Errors
    /// As [`Tokenizer::load`]; [`DataError::OtherTokenizer`] if the file beside the shards is another.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        let Some(TokenizerIdentity { sha256, eos_token, .. }) = self.tokenizer_identity() else {
            return Ok(None);
        };
        let tokenizer = match sha256 {
            None => Tokenizer::Bytes,
            Some(_) => Tokenizer::load(&self.path.join(TOKENIZER_JSON), Some(eos_token))?,
        };
        self.check_tokenizer(&tokenizer)?;
        Ok(Some(tokenizer))
    }

    /// Checks that a tokenizer is the one that made the tokens. Without a manifest there is nothing to check
    /// by.
    ///
    /// # Errors
    /// [`DataError::OtherTokenizer`] if it is not.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        let actual = TokenizerIdentity::of(tokenizer);
        match self.tokenizer_identity() {
            Some(expected)
                if (&expected.sha256, expected.vocab_size) != (&actual.sha256, actual.vocab_size) =>
            {
                Err(DataError::OtherTokenizer {
                    path: self.path.clone(),
                    made_by: describe(expected),
                    given: describe(&actual),
                })
            }
            _ => Ok(()),
        }
    }

    /// Checks that a model with `vocab_size` embeddings has one for every token of the vocabulary. Without a
    /// manifest, every token is looked at.
    ///
    /// # Errors
    /// [`DataError::VocabularyTooSmall`] if it has not.
    pub fn check_vocabulary(&self, vocab_size: usize) -> Result<()> {
        let needed = match self.tokenizer_identity() {
            Some(identity) => identity.vocab_size,
            None => {
                self.shards.iter().filter_map(ShardReader::max_token).max().map_or(0, |id| id as usize + 1)
            }
        };
        if needed <= vocab_size {
            Ok(())
        } else {
            Err(DataError::VocabularyTooSmall { path: self.path.clone(), needed, vocab_size })
        }
    }

    /// The shards, in the order of their names.
    pub fn shards(&self) -> &[ShardReader] {
        &self.shards
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.shards.iter().map(ShardReader::documents).sum()
    }

    /// Number of tokens.
    pub fn tokens(&self) -> u64 {
        self.shards.iter().map(ShardReader::tokens).sum()
    }

    /// The tokens of a document, its end-of-document token included if the corpus has them.
    ///
    /// # Panics
    /// If `document` is not below [`documents`](Self::documents), as for a slice.
    pub fn document(&self, document: usize) -> Tokens<'_> {
        let (shard, document) = self.locate(document);
        shard.document(document)
    }

    /// Number of tokens of a document, without touching them.
    ///
    /// # Panics
    /// If `document` is not below [`documents`](Self::documents).
    pub fn document_tokens(&self, document: usize) -> usize {
        let (shard, document) = self.locate(document);
        shard.document_tokens(document)
    }

    /// The shard of a document and its number there.
    fn locate(&self, document: usize) -> (&ShardReader, usize) {
        let shard = self.starts.partition_point(|&start| start <= document) - 1;
        (&self.shards[shard], document - self.starts[shard])
    }
}

fn describe(identity: &TokenizerIdentity) -> String {
    match &identity.sha256 {
        None => "the tokenizer `bytes`".to_owned(),
        Some(sha256) => {
            format!("a tokenizer.json with {} ids and the SHA-256 {sha256:.12}..", identity.vocab_size)
        }
    }
}

/// The manifests of a directory: complete, of one tokenizer, and all parts of a whole.
fn read_manifests(directory: &Path) -> Result<Vec<Manifest>> {
    let paths = manifest_paths(directory)?;
    let mut manifests: Vec<Manifest> = Vec::with_capacity(paths.len());
    for path in &paths {
        let bad = |cause: &str| DataError::BadManifest { path: path.clone(), cause: cause.to_owned() };
        let manifest = Manifest::read(path)?;
        if manifest.resume_at.is_some() {
            return Err(bad(
                "the preparation was interrupted; run it again with the same arguments to finish it",
            ));
        }
        if let Some(first) = manifests.first() {
            if first.tokenizer != manifest.tokenizer {
                return Err(bad("another tokenizer made this part than the first"));
            }
            if first.part.count != manifest.part.count {
                return Err(bad("it is a part of another division than the first"));
            }
        }
        manifests.push(manifest);
    }
    if let (Some(first), Some(path)) = (manifests.first(), paths.first()) {
        let count = first.part.count;
        let missing =
            (1..=count).find(|&index| !manifests.iter().any(|manifest| manifest.part.index == index));
        if let Some(index) = missing {
            let cause = format!(
                "it is one of {count} parts, and {} is not here; prepare that part too, or copy it here",
                Part { index, count }.manifest_name()
            );
            return Err(DataError::BadManifest { path: path.clone(), cause });
        }
    }
    Ok(manifests)
}

fn open_directory(directory: &Path) -> Result<Vec<ShardReader>> {
    let mut paths = crate::source::entries(directory)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "idx"));
    if paths.is_empty() {
        return Err(DataError::NoShards { path: directory.to_owned() });
    }
    paths.iter().map(|path| ShardReader::open(path)).collect()
}

/// Checks the shards of a directory against its manifests, if there are any.
fn check_shards(directory: &Path, manifests: &[Manifest], shards: &[ShardReader]) -> Result<()> {
    let Some(first) = manifests.first() else {
        return Ok(());
    };
    let bad = |cause: String| {
        Err(DataError::BadManifest { path: directory.join(first.part.manifest_name()), cause })
    };
    let mut listed: BTreeMap<&str, &ShardCount> = manifests
        .iter()
        .flat_map(|manifest| &manifest.shards)
        .map(|shard| (shard.name.as_str(), shard))
        .collect();
    for shard in shards {
        let name = shard.path().file_stem().map(|name| name.to_string_lossy()).unwrap_or_default();
        let Some(expected) = listed.remove(name.as_ref()) else {
            return bad(format!("it does not list the shard {name}, which is here; move that away"));
        };
        let actual = (shard.documents() as u64, shard.tokens());
        if actual != (expected.documents, expected.tokens) {
            return bad(format!(
                "it lists the shard {name} with {} documents and {} tokens, and that has {} and {}; restore the \
                 shard, or prepare the corpus again",
                expected.documents, expected.tokens, actual.0, actual.1
            ));
        }
    }
    match listed.first_key_value() {
        None => Ok(()),
        Some((name, _)) => bad(format!("it lists the shard {name}, which is not here; restore it")),
    }
}
