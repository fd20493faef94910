//! The manifest of a directory of shards: one file, or one per part made by a machine.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use ssa_files::Sha256;
use ssa_text::{BYTES, TOKENIZER_JSON, Tokenizer};

use super::part::{Part, PartFiles};
use super::writer::with_extension;
use crate::file_sum::FileSum;
use crate::input::Format;
use crate::{DataError, Result};

/// The file name in messages.
const MANIFEST: &str = "manifest.json";
const VERSION: u32 = 1;

/// `manifest.json`. It is written after all shards are complete, so its presence means that the
/// corpus is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format: 1.
    pub version: u32,
    /// The tokenizer.
    pub tokenizer: TokenizerSum,
    /// How the text was read and split; `None` if another program did that.
    pub settings: Option<PrepareSettings>,
    /// The shards, sorted by name.
    pub shards: Vec<ShardSum>,
    /// The sources of the text.
    pub sources: Vec<SourceSum>,
}

/// How a corpus was prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareSettings {
    /// The machine's part of the work.
    pub part: Part,
    /// How files were read.
    pub format: Format,
    /// Key or column of the text.
    pub text_field: String,
    /// Key or column of the conversation, read instead of the text.
    pub conversations_field: Option<String>,
    /// Number of tokens after which a shard ends with the current document.
    pub shard_tokens: u64,
}

/// Totals of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSum {
    /// Its name.
    pub name: String,
    /// Stored size of the file, if known.
    pub bytes: Option<u64>,
    /// SHA-256 of the file, after it was read completely; `None` for Hub files, whose names include
    /// the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Documents written.
    pub documents: u64,
    /// Documents skipped because they have no text.
    pub empty_documents: u64,
    /// Bytes of text of the documents written.
    pub text_bytes: u64,
    /// Tokens written, including end-of-document tokens.
    pub tokens: u64,
}

/// The tokenizer of a corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSum {
    /// SHA-256 of the `tokenizer.json` next to the manifest; `None` for the tokenizer `bytes`.
    pub sha256: Option<String>,
    /// Number of ids; every token is smaller.
    pub vocab_size: usize,
    /// The id that ends every document.
    pub eos_token_id: u32,
    /// The end-of-document token, if it was named explicitly.
    pub eos_token: Option<String>,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardSum {
    /// Name of its files without extension.
    pub name: String,
    /// Number of documents.
    pub documents: u64,
    /// Number of tokens, including end-of-document tokens.
    pub tokens: u64,
    /// Bytes of text of the tokens.
    pub text_bytes: u64,
    /// The tokens file.
    pub bin: FileSum,
    /// The index file.
    pub idx: FileSum,
    /// The file with the bytes of text of each document, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<FileSum>,
}

impl fmt::Display for TokenizerSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sha256 {
            None => write!(f, "the tokenizer `{BYTES}`")?,
            Some(sha256) => write!(
                f,
                "a tokenizer.json of {} tokens (SHA-256 {}..)",
                self.vocab_size,
                sha256.get(..12).unwrap_or(sha256)
            )?,
        }
        match &self.eos_token {
            Some(token) => write!(f, " with `{token}` at the end of documents"),
            None => Ok(()),
        }
    }
}

/// The extent of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestCheck {
    /// Checksums of the indices and sizes of the other files: detects missing, truncated or swapped
    /// files.
    Indices,
    /// Checksums of all files.
    Everything,
}

impl Manifest {
    /// Creates the manifest of shards made with `tokenizer`. `eos_token` is the end-of-document
    /// token, if it was named explicitly.
    pub fn new(
        tokenizer: &Tokenizer,
        eos_token: Option<&str>,
        shards: Vec<ShardSum>,
        sources: Vec<SourceSum>,
    ) -> Self {
        let tokenizer = TokenizerSum {
            sha256: tokenizer.sha256().map(str::to_owned),
            vocab_size: tokenizer.vocab_size(),
            eos_token_id: tokenizer.eos(),
            eos_token: eos_token.map(str::to_owned),
        };
        Self { version: VERSION, tokenizer, settings: None, shards, sources }
    }

    /// Number of documents in all shards.
    pub fn documents(&self) -> u64 {
        self.shards.iter().map(|shard| shard.documents).sum()
    }

    /// Number of tokens in all shards.
    pub fn tokens(&self) -> u64 {
        self.shards.iter().map(|shard| shard.tokens).sum()
    }

    /// Bytes of text of all shards.
    pub fn text_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.text_bytes).sum()
    }

    /// The machine's part of the work.
    pub fn part(&self) -> Part {
        self.settings.as_ref().map_or(Part::WHOLE, |settings| settings.part)
    }

    /// Reads the manifest of a directory, with all parts of the corpus merged; `None` if there is
    /// no manifest.
    ///
    /// # Errors
    /// [`DataError::Read`]; [`DataError::Corpus`] if it is not a manifest, parts belong to
    /// different corpora or are missing, or a preparation was interrupted.
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        if !directory.is_dir() {
            return Ok(None);
        }
        let found = PartFiles::of(directory)?;
        if let Some(path) = found.preparations.into_iter().next() {
            return Err(DataError::Corpus {
                path,
                cause: "the preparation of this corpus was interrupted".to_owned(),
                hint: "run the same `ssa data prepare` again to finish it",
            });
        }
        let mut paths = found.manifests.into_iter();
        let Some(first) = paths.next() else {
            return Ok(None);
        };
        let mut whole = Self::read_file(&first)?;
        let mut present = BTreeSet::from([whole.part()]);
        for path in paths {
            let other = Self::read_file(&path)?;
            present.insert(other.part());
            whole.append(other).map_err(|cause| DataError::wrong_manifest(&path, cause))?;
        }
        if let Some(part) = whole.part().first_missing(&present) {
            return Err(DataError::Corpus {
                path: directory.join(part.manifest_name()),
                cause: "missing, although other parts of the same corpus exist".to_owned(),
                hint: "prepare that part too, or copy it here",
            });
        }
        if let Some(settings) = &mut whole.settings {
            settings.part = Part::WHOLE;
        }
        Ok(Some(whole))
    }

    /// Appends another part.
    fn append(&mut self, other: Self) -> Result<(), String> {
        if self.tokenizer != other.tokenizer || self.part().count != other.part().count {
            return Err("it is not a part of the same corpus as the first manifest".to_owned());
        }
        self.shards.extend(other.shards);
        self.sources.extend(other.sources);
        Ok(())
    }

    /// Reads one manifest file.
    pub(crate) fn read_file(path: &Path) -> Result<Self> {
        let text = ssa_files::read(path).map_err(|source| DataError::from_open(path, source))?;
        let wrong = |cause: String| Err(DataError::wrong_manifest(path, cause));
        match serde_json::from_slice::<Self>(&text) {
            Ok(manifest) if !manifest.part().is_valid() => {
                let Part { index, count } = manifest.part();
                wrong(format!("it is of part {index}/{count}, which does not exist"))
            }
            Ok(manifest) if manifest.version == VERSION => Ok(manifest),
            Ok(manifest) => wrong(format!(
                "it has version {}, but this program reads {VERSION}",
                manifest.version
            )),
            Err(error) => wrong(format!("not a manifest of a corpus: {error}")),
        }
    }

    /// Writes the manifest atomically.
    ///
    /// # Errors
    /// [`DataError::File`] names the file.
    pub fn write(&self, directory: &Path) -> Result<()> {
        Ok(ssa_files::write_json(&directory.join(self.part().manifest_name()), self)?)
    }

    /// Loads the tokenizer of the corpus from the copy next to the manifest.
    ///
    /// # Errors
    /// Errors of [`Tokenizer::load`]; [`DataError::Corpus`] if the copy is a different tokenizer.
    pub fn load_tokenizer(&self, directory: &Path) -> Result<Tokenizer> {
        let expected = &self.tokenizer;
        let copy = if expected.sha256.is_some() {
            directory.join(TOKENIZER_JSON)
        } else {
            PathBuf::from(BYTES)
        };
        let tokenizer = Tokenizer::load(&copy, expected.eos_token.as_deref())?;
        let found = (tokenizer.sha256(), tokenizer.vocab_size(), tokenizer.eos());
        if found == (expected.sha256.as_deref(), expected.vocab_size, expected.eos_token_id) {
            return Ok(tokenizer);
        }
        let cause = format!(
            "the corpus was made with a tokenizer of {} tokens, of which {} ends documents, but {} \
             has {} tokens, of which {} does, or is another one",
            expected.vocab_size,
            expected.eos_token_id,
            copy.display(),
            tokenizer.vocab_size(),
            tokenizer.eos()
        );
        Err(DataError::wrong_manifest(&directory.join(MANIFEST), cause))
    }

    /// Compares the files of a directory with the manifest.
    ///
    /// # Errors
    /// [`DataError::Missing`], [`DataError::Read`] or [`DataError::Corpus`] names the first file
    /// that does not match, or a shard that is not listed.
    pub fn check(&self, directory: &Path, check: ManifestCheck) -> Result<()> {
        let listed: BTreeSet<&str> = self.shards.iter().map(|shard| shard.name.as_str()).collect();
        for path in super::reader::indices(directory)? {
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if !listed.contains(name) {
                let cause = format!("it does not list the shard {}", path.display());
                return Err(DataError::wrong_manifest(&directory.join(MANIFEST), cause));
            }
        }
        self.check_shards(directory, check)
    }

    /// Compares the listed files.
    pub(crate) fn check_shards(&self, directory: &Path, check: ManifestCheck) -> Result<()> {
        for shard in &self.shards {
            let stem = directory.join(&shard.name);
            check_file(&with_extension(&stem, "idx"), &shard.idx, true)?;
            check_file(
                &with_extension(&stem, "bin"),
                &shard.bin,
                check == ManifestCheck::Everything,
            )?;
            if let Some(bytes) = &shard.bytes {
                check_file(&with_extension(&stem, "bytes"), bytes, true)?;
            }
        }
        Ok(())
    }
}

fn check_file(path: &Path, expected: &FileSum, sum: bool) -> Result<()> {
    let damaged = |cause: String| Err(DataError::damaged_shard(path, cause));
    let bytes = fs::metadata(path).map_err(|source| DataError::from_open(path, source))?.len();
    if bytes != expected.bytes {
        return damaged(format!("it has {bytes} bytes where {MANIFEST} has {}", expected.bytes));
    }
    let sum_of =
        |path| Sha256::of_file(path).map_err(|error| DataError::from_open(path, error.source));
    if sum && sum_of(path)?.to_string() != expected.sha256 {
        return damaged(format!("its checksum is not the one in {MANIFEST}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
