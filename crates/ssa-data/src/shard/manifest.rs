//! What a directory of shards holds: `manifest.json`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::FileSum;
use crate::{DataError, Format, Result, Tokenizer};

const VERSION: u32 = 1;

/// The description of a corpus, or of one machine's part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this form, 1.
    pub version: u32,
    /// Which part of the corpus this is.
    pub part: Part,
    /// What made the tokens.
    pub tokenizer: TokenizerIdentity,
    /// How the sources were read.
    pub settings: PrepareSettings,
    /// The files that were read.
    pub sources: Vec<SourceCount>,
    /// The shards, in order.
    pub shards: Vec<ShardCount>,
    /// Where an interrupted preparation goes on; none for one that is complete.
    pub resume_at: Option<Position>,
}

/// One machine's part of a preparation, written `index/count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// From 1 to `count`.
    pub index: usize,
    /// Number of parts.
    pub count: usize,
}

impl Part {
    /// The whole.
    pub const WHOLE: Self = Self { index: 1, count: 1 };

    /// A part.
    ///
    /// # Errors
    /// [`DataError::Setting`] unless `index` is from 1 to `count`.
    pub fn new(index: usize, count: usize) -> Result<Self> {
        if (1..=count).contains(&index) {
            Ok(Self { index, count })
        } else {
            Err(DataError::setting("shard", "i/n with i from 1 to n", format!("{index}/{count}")))
        }
    }

    /// The name of its manifest.
    pub fn manifest_name(self) -> String {
        match self {
            Self::WHOLE => "manifest.json".to_owned(),
            Self { index, count } => format!("manifest-{index:03}-of-{count:03}.json"),
        }
    }

    /// The name of a shard, without extension.
    pub fn shard_name(self, number: usize) -> String {
        match self {
            Self::WHOLE => format!("{number:05}"),
            Self { index, count } => format!("{index:03}-of-{count:03}-{number:05}"),
        }
    }
}

/// Which tokenizer made the tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerIdentity {
    /// SHA-256 of `tokenizer.json`, of which a copy lies beside the shards; none for the tokenizer `bytes`.
    pub sha256: Option<String>,
    /// Number of ids.
    pub vocab_size: usize,
    /// The id at the end of every document.
    pub eos: u32,
    /// Its name.
    pub eos_token: String,
}

impl TokenizerIdentity {
    /// The identity of a tokenizer.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        Self {
            sha256: tokenizer.sha256().map(str::to_owned),
            vocab_size: tokenizer.vocab_size(),
            eos: tokenizer.eos(),
            eos_token: tokenizer.eos_token(),
        }
    }
}

/// The settings that decide about the content of the shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareSettings {
    /// How files were read.
    pub format: Format,
    /// Key or column of the text.
    pub text_field: String,
    /// Key or column of the conversation, read instead of the text.
    pub conversations_field: Option<String>,
    /// Tokens after which a shard ends with the document.
    pub shard_tokens: u64,
}

/// What came of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceCount {
    /// Its name.
    pub name: String,
    /// Size of the file as it is stored, if it has one.
    pub bytes: Option<u64>,
    /// Documents written.
    pub documents: u64,
    /// Documents left out because they hold no text.
    pub empty_documents: u64,
    /// Bytes of text of the documents written.
    pub text_bytes: u64,
    /// Tokens written, those at the ends of documents included.
    pub tokens: u64,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardCount {
    /// Name of its files without extension.
    pub name: String,
    /// Number of documents.
    pub documents: u64,
    /// Number of tokens.
    pub tokens: u64,
    /// The tokens' file.
    pub bin: FileSum,
    /// The index.
    pub idx: FileSum,
}

/// A place in the sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Number of the source, from 0.
    pub source: usize,
    /// Number of the first record that is in no whole shard yet.
    pub record: u64,
}

impl Manifest {
    /// A preparation about to begin.
    pub(crate) fn begin(
        part: Part,
        tokenizer: &Tokenizer,
        settings: PrepareSettings,
        sources: Vec<SourceCount>,
    ) -> Self {
        let tokenizer = TokenizerIdentity::of(tokenizer);
        let resume_at = Some(Position::default());
        Self { version: VERSION, part, tokenizer, settings, sources, shards: Vec::new(), resume_at }
    }

    /// Documents in all shards.
    pub fn documents(&self) -> u64 {
        self.shards.iter().map(|shard| shard.documents).sum()
    }

    /// Tokens in all shards.
    pub fn tokens(&self) -> u64 {
        self.shards.iter().map(|shard| shard.tokens).sum()
    }

    /// Bytes of text of all documents.
    pub fn text_bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.text_bytes).sum()
    }

    /// Documents without text, which are in no shard.
    pub fn empty_documents(&self) -> u64 {
        self.sources.iter().map(|source| source.empty_documents).sum()
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`DataError::Missing`], [`DataError::Unreadable`], or [`DataError::BadManifest`] if it is none of this
    /// version.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|source| DataError::from_open(path, source))?;
        let bad = |cause: String| DataError::BadManifest { path: path.to_owned(), cause };
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if manifest.version == VERSION {
            Ok(manifest)
        } else {
            Err(bad(format!(
                "it is of version {}, and this program reads version {VERSION}",
                manifest.version
            )))
        }
    }

    /// Writes the manifest into a directory: the whole file or, if that fails, none.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(self.part.manifest_name());
        let provisional = path.with_extension("json.partial");
        let failed = |source| DataError::write(&path, source);
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        let mut file = File::create(&provisional).map_err(failed)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.sync_data())
            .and_then(|()| fs::rename(&provisional, &path))
            .map_err(failed)
    }
}

/// The manifests of a directory, by name.
pub(crate) fn manifest_paths(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = crate::source::entries(directory)?;
    paths.retain(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        name.starts_with("manifest") && name.ends_with(".json")
    });
    Ok(paths)
}
