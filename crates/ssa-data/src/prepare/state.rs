//! What a preparation keeps on the disk to go on with.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use ssa_files::{Lock, LockError};

use super::{PrepareOptions, Work};
use crate::shard::PartFiles;
use crate::{
    DataError, Manifest, ManifestCheck, Part, PrepareSettings, Result, SourceSum, Tokenizer,
};

/// A place in the sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// Number of the source, from 0.
    pub(super) source: usize,
    /// Number of the record in it, from 0.
    pub(super) record: u64,
}

/// The state of a preparation after its last whole shard: `preparation.json`, which becomes
/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Preparation {
    /// The first record that is in no whole shard.
    pub(super) resume_at: Position,
    pub(super) manifest: Manifest,
}

impl Preparation {
    fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|source| DataError::from_open(path, source))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let cause = format!("it is no state of a preparation ({error})");
            DataError::WrongManifest { path: path.to_owned(), cause }
        })
    }

    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        Ok(ssa_files::write_json(&directory.join(self.manifest.part().preparation_name()), self)?)
    }

    /// Writes the manifest in place of the state.
    pub(super) fn complete(self, directory: &Path) -> Result<Manifest> {
        self.manifest.write(directory)?;
        ssa_files::remove_file(&directory.join(self.manifest.part().preparation_name()))?;
        Ok(self.manifest)
    }
}

/// A preparation that this process alone may write.
pub(super) struct Begun {
    pub(super) preparation: Preparation,
    /// Whether there is nothing left to do.
    pub(super) complete: bool,
    _lock: PartLock,
}

/// Takes hold of the output directory and finds out where to go on.
pub(super) fn begin(work: &Work, tokenizer: &Tokenizer, options: &PrepareOptions) -> Result<Begun> {
    let directory = &options.output;
    ssa_files::create_directories(directory)?;
    let _lock = PartLock::take(directory, options.part)?;
    let (path, state) = (
        directory.join(options.part.manifest_name()),
        directory.join(options.part.preparation_name()),
    );
    refuse_other_corpora(directory, options.part, path.exists() || state.exists())?;
    ssa_files::remove_leftovers(directory)?;

    let eos_token = tokenizer.eos_token();
    let mut fresh = Manifest::new(tokenizer, eos_token.as_deref(), Vec::new(), work.sums());
    fresh.settings = Some(PrepareSettings::of(options));
    if path.exists() {
        let end = Position { source: work.sources.len(), record: 0 };
        let preparation = Preparation { resume_at: end, manifest: Manifest::read_file(&path)? };
        compare(&path, &preparation, &fresh)?;
        ssa_files::remove_file(&state)?;
        return Ok(Begun { preparation, complete: true, _lock });
    }
    let begun = if state.exists() { Some(Preparation::read(&state)?) } else { None };
    // A preparation without a whole shard has nothing to go on with.
    if let Some(mut preparation) = begun.filter(|begun| !begun.manifest.shards.is_empty()) {
        compare(&state, &preparation, &fresh)?;
        preparation.manifest.check_shards(directory, ManifestCheck::Indices)?;
        for (source, now) in preparation.manifest.sources.iter_mut().zip(fresh.sources) {
            source.bytes = now.bytes;
        }
        return Ok(Begun { preparation, complete: false, _lock });
    }
    // Tokens are worth nothing without their tokenizer.
    tokenizer.copy_to(directory)?;
    let preparation = Preparation { resume_at: Position::default(), manifest: fresh };
    preparation.write(directory)?;
    Ok(Begun { preparation, complete: false, _lock })
}

/// Refuses a directory with shards or manifests that are not of this corpus.
fn refuse_other_corpora(directory: &Path, part: Part, begun: bool) -> Result<()> {
    let ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        part.shares_directory_with(&name)
    };
    let PartFiles { manifests, preparations } = PartFiles::of(directory)?;
    if let Some(path) = manifests.into_iter().chain(preparations).find(|path| !ours(path)) {
        return Err(DataError::Exists { path });
    }
    for path in crate::source::entries(directory)? {
        let shard = path.extension().is_some_and(|extension| extension == "idx");
        // Those of other parts lie here by right, those of this part if it was begun.
        if shard && !(ours(&path) && (begun || part != Part::WHOLE)) {
            return Err(DataError::Exists { path });
        }
    }
    Ok(())
}

/// Checks that a preparation was begun as this one would be.
fn compare(path: &Path, begun: &Preparation, now: &Manifest) -> Result<()> {
    let Preparation { resume_at, manifest: begun } = begun;
    let changed = |before: String, now: String| {
        Err(DataError::PreparationChanged { path: path.to_owned(), before, now })
    };
    if begun.tokenizer != now.tokenizer {
        let (before, now) = (&begun.tokenizer, &now.tokenizer);
        return changed(format!("the tokenizer {before:?}"), format!("{now:?}"));
    }
    if begun.settings != now.settings {
        return changed(format!("{:?}", begun.settings), format!("{:?}", now.settings));
    }
    let name = |source: Option<&SourceSum>| match source {
        None => "the end of the inputs".to_owned(),
        Some(SourceSum { name, bytes: None, .. }) => name.clone(),
        Some(SourceSum { name, bytes: Some(bytes), .. }) => format!("{name} ({bytes} bytes)"),
    };
    // Of what is not read yet, only the names matter: a file that was damaged may have been
    // corrected.
    let read = resume_at.source.saturating_add(usize::from(resume_at.record > 0));
    for number in 0..begun.sources.len().max(now.sources.len()) {
        let (before, after) = (begun.sources.get(number), now.sources.get(number));
        let same = |key: fn(&SourceSum) -> Option<u64>| before.map(key) == after.map(key);
        let same_name = before.map(|source| &source.name) == after.map(|source| &source.name);
        if !same_name || (number < read && !same(|source| source.bytes)) {
            return changed(name(before), name(after));
        }
    }
    Ok(())
}

/// The right to write a part of a corpus, until it is dropped or the process ends.
struct PartLock(Lock);

impl PartLock {
    fn take(directory: &Path, part: Part) -> Result<Self> {
        let path = directory.join(part.preparation_name()).with_extension("lock");
        match Lock::take(&path) {
            Ok(lock) => Ok(Self(lock)),
            Err(LockError::Held { .. }) => Err(DataError::InUse { path: directory.to_owned() }),
            Err(LockError::File(error)) => Err(error.into()),
        }
    }
}

impl Drop for PartLock {
    fn drop(&mut self) {
        // A corpus is complete without it, and a file that stays does no harm.
        let _ = ssa_files::remove_file(self.0.path());
    }
}
