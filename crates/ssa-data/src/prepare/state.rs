//! The on-disk state of a preparation, for resuming.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};
use ssa_files::{FileError, Lock, LockError, Operation, Sha256};
use ssa_text::Tokenizer;

use super::{PrepareOptions, Work};
use crate::file_sum::FileSum;
use crate::input::entries;
use crate::shard::{Manifest, ManifestCheck, Part, PartFiles, PrepareSettings, SourceSum};
use crate::{DataError, Result};

const CONTINUE_HINT: &str = "use the same settings to resume, or choose another output directory";

/// A position in the sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// Number of the source, from 0.
    pub(super) source: usize,
    /// Number of the record in it, from 0.
    pub(super) record: u64,
}

/// The state of a preparation after its last complete shard: `preparation.json`, which becomes
/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Preparation {
    /// The first record that is not in a complete shard.
    pub(super) resume_at: Position,
    /// The checksum of its source up to there, if the source can change.
    pub(super) read: Option<FileSum>,
    pub(super) manifest: Manifest,
    /// Checksum of the other fields.
    sha256: String,
}

impl Preparation {
    pub(super) fn new(resume_at: Position, manifest: Manifest) -> Self {
        Self { resume_at, read: None, manifest, sha256: String::new() }
    }

    fn read(path: &Path) -> Result<Self> {
        let bytes = ssa_files::read(path).map_err(|source| DataError::from_open(path, source))?;
        let damaged = |cause: String| DataError::Corpus {
            path: path.to_owned(),
            cause,
            hint: "remove the output directory and prepare the corpus again",
        };
        let state: Self = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(format!("not the state of a preparation: {error}")))?;
        if state.sum().ok().as_ref() != Some(&state.sha256) {
            return Err(damaged("wrong checksum: the file was modified".to_owned()));
        }
        Ok(state)
    }

    pub(super) fn write(&mut self, directory: &Path) -> Result<()> {
        let path = directory.join(self.manifest.part().preparation_name());
        let sum = self.sum().map_err(|error| FileError::at(Operation::Write, &path)(error.into()));
        self.sha256 = sum?;
        Ok(ssa_files::write_json(&path, self)?)
    }

    fn sum(&self) -> serde_json::Result<String> {
        let json = serde_json::to_vec(&(&self.resume_at, &self.read, &self.manifest))?;
        Ok(Sha256::of(json).to_string())
    }

    /// Replaces the state by the manifest.
    pub(super) fn complete(self, directory: &Path) -> Result<Manifest> {
        self.manifest.write(directory)?;
        ssa_files::remove_file(&directory.join(self.manifest.part().preparation_name()))?;
        Ok(self.manifest)
    }
}

/// A preparation that is locked by this process.
pub(super) struct Begun {
    pub(super) preparation: Preparation,
    /// Whether there is nothing left to do.
    pub(super) complete: bool,
    _lock: PartLock,
}

/// Locks the output directory and determines where to resume.
pub(super) fn begin(work: &Work, tokenizer: &Tokenizer, options: &PrepareOptions) -> Result<Begun> {
    let directory = &options.output;
    ssa_files::create_directories(directory)?;
    let _lock = PartLock::take(directory, options.part)?;
    let (path, state) = (
        directory.join(options.part.manifest_name()),
        directory.join(options.part.preparation_name()),
    );
    refuse_other_files(directory, options.part, path.exists() || state.exists())?;
    ssa_files::remove_leftovers(directory)?;

    let eos_token = tokenizer.eos_token();
    let mut fresh = Manifest::new(tokenizer, eos_token.as_deref(), Vec::new(), work.sums());
    fresh.settings = Some(PrepareSettings::of(options));
    if path.exists() {
        let end = Position { source: work.sources.len(), record: 0 };
        let preparation = Preparation::new(end, Manifest::read_file(&path)?);
        compare(&path, &preparation, &fresh)?;
        compare_sums(&path, work, &preparation, options.threads)?;
        ssa_files::remove_file(&state)?;
        return Ok(Begun { preparation, complete: true, _lock });
    }
    let begun = if state.exists() { Some(Preparation::read(&state)?) } else { None };
    // A preparation without a complete shard has nothing to resume.
    if let Some(mut preparation) = begun.filter(|begun| !begun.manifest.shards.is_empty()) {
        compare(&state, &preparation, &fresh)?;
        compare_sums(&state, work, &preparation, options.threads)?;
        preparation.manifest.check_shards(directory, ManifestCheck::Indices)?;
        for (source, now) in preparation.manifest.sources.iter_mut().zip(fresh.sources) {
            source.bytes = now.bytes;
        }
        return Ok(Begun { preparation, complete: false, _lock });
    }
    let mut preparation = Preparation::new(Position::default(), fresh);
    preparation.write(directory)?;
    // Tokens are useless without their tokenizer.
    tokenizer.copy_to(directory)?;
    Ok(Begun { preparation, complete: false, _lock })
}

/// Refuses a directory with files of other corpora.
fn refuse_other_files(directory: &Path, part: Part, begun: bool) -> Result<()> {
    let exists = |path: PathBuf| {
        let hint = "choose another directory, or move the file away";
        Err(DataError::Output { path, cause: "already exists".to_owned(), hint })
    };
    let ours = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        part.shares_directory_with(&name)
    };
    let PartFiles { manifests, preparations } = PartFiles::of(directory)?;
    let parts_are_here = !manifests.is_empty();
    if let Some(path) = manifests.into_iter().chain(preparations).find(|path| !ours(path)) {
        return exists(path);
    }
    let found = entries(directory)?;
    let has = |path: &Path, wanted: &str| path.extension().is_some_and(|found| found == wanted);
    // Shards of other parts are allowed, and those of this part if it was started.
    let is_foreign =
        |path: &&PathBuf| has(path, "idx") && !(ours(path) && (begun || part != Part::WHOLE));
    if let Some(path) = found.iter().find(is_foreign) {
        return exists(path.clone());
    }
    for path in &found {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let of_parts = part != Part::WHOLE
            && (ours(path)
                || (parts_are_here && ssa_text::TOKENIZER_FILES.contains(&name.as_ref())));
        if !begun && !of_parts && !has(path, "lock") && !name.starts_with('.') {
            return Err(DataError::Output {
                path: directory.to_owned(),
                cause: format!("the directory holds other files, such as {name}"),
                hint: "choose a new or empty directory",
            });
        }
    }
    Ok(())
}

fn changed(path: &Path, before: &str, now: &str) -> DataError {
    DataError::Output {
        path: path.to_owned(),
        cause: format!("this preparation was started with {before}, not {now}"),
        hint: CONTINUE_HINT,
    }
}

/// Checks that a preparation was started with the same settings and inputs.
fn compare(path: &Path, begun: &Preparation, now: &Manifest) -> Result<()> {
    let Preparation { resume_at, manifest: begun, .. } = begun;
    if begun.tokenizer != now.tokenizer {
        let (before, now) = (begun.tokenizer.to_string(), now.tokenizer.to_string());
        return Err(changed(path, &before, &now));
    }
    if let (Some(before), Some(now)) = (&begun.settings, &now.settings)
        && let Some((before, now)) = before.difference(now)
    {
        return Err(changed(path, &before, &now));
    }
    let name = |source: Option<&SourceSum>| match source {
        None => "the end of the inputs".to_owned(),
        Some(SourceSum { name, bytes: None, .. }) => name.clone(),
        Some(SourceSum { name, bytes: Some(bytes), .. }) => format!("{name} ({bytes} bytes)"),
    };
    // For sources not read yet only the names must match: a corrupt file may have been fixed.
    let read = resume_at.source.saturating_add(usize::from(resume_at.record > 0));
    for number in 0..begun.sources.len().max(now.sources.len()) {
        let (before, after) = (begun.sources.get(number), now.sources.get(number));
        let same = |key: fn(&SourceSum) -> Option<u64>| before.map(key) == after.map(key);
        let same_name = before.map(|source| &source.name) == after.map(|source| &source.name);
        if !same_name || (number < read && !same(|source| source.bytes)) {
            return Err(changed(path, &name(before), &name(after)));
        }
    }
    Ok(())
}

/// Checks on several threads that completely read sources have not changed.
fn compare_sums(path: &Path, work: &Work, begun: &Preparation, threads: usize) -> Result<()> {
    let sums = begun.manifest.sources.iter().take(begun.resume_at.source);
    let read: Vec<_> = work
        .sources
        .iter()
        .zip(sums)
        .filter_map(|(source, sum)| Some((source, sum.sha256.as_ref()?)))
        .collect();
    let (next, first_error) = (AtomicUsize::new(0), Mutex::new(None));
    let fail = |error: DataError| {
        next.store(read.len(), Ordering::Relaxed);
        first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    };
    let compare_next = || {
        while let Some((source, expected)) = read.get(next.fetch_add(1, Ordering::Relaxed)) {
            match source.sum() {
                Ok(sum) if sum.sha256 == **expected => {}
                Ok(_) => fail(DataError::Output {
                    path: path.to_owned(),
                    cause: format!("{} has changed since it was prepared", source.name()),
                    hint: CONTINUE_HINT,
                }),
                Err(error) => fail(error),
            }
        }
    };
    thread::scope(|scope| {
        // As many as can be started, and this one.
        for _ in 1..threads.min(read.len()) {
            if thread::Builder::new().spawn_scoped(scope, compare_next).is_err() {
                break;
            }
        }
        compare_next();
    });
    first_error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

impl PrepareSettings {
    /// The first setting that differs, with both values.
    fn difference(&self, other: &Self) -> Option<(String, String)> {
        let quoted = |field: &Option<String>| {
            field.as_ref().map_or_else(|| "nothing".to_owned(), |field| format!("`{field}`"))
        };
        let part = |part: Part| format!("part {}/{}", part.index, part.count);
        let format = |settings: &Self| format!("format {:?}", settings.format).to_lowercase();
        let shard_tokens = |settings: &Self| format!("shard_tokens {}", settings.shard_tokens);
        let text_field = |settings: &Self| format!("text_field `{}`", settings.text_field);
        let conversations = |settings: &Self| {
            format!("conversations_field {}", quoted(&settings.conversations_field))
        };
        [
            (part(self.part), part(other.part)),
            (format(self), format(other)),
            (text_field(self), text_field(other)),
            (conversations(self), conversations(other)),
            (shard_tokens(self), shard_tokens(other)),
        ]
        .into_iter()
        .find(|(before, now)| before != now)
    }
}

/// The lock of a part of a corpus, held until it is dropped or the process ends.
struct PartLock(Lock);

impl PartLock {
    fn take(directory: &Path, part: Part) -> Result<Self> {
        let path = directory.join(part.preparation_name()).with_extension("lock");
        match Lock::take(&path) {
            Ok(lock) => Ok(Self(lock)),
            Err(LockError::Held { .. }) => Err(DataError::Corpus {
                path: directory.to_owned(),
                cause: "another `ssa data prepare` is writing to this directory".to_owned(),
                hint: "wait for it, or choose another output directory",
            }),
            Err(LockError::File(error)) => Err(error.into()),
        }
    }
}

impl Drop for PartLock {
    fn drop(&mut self) {
        // A corpus is complete without the file, and a leftover file does no harm.
        let _ = ssa_files::remove_file(self.0.path());
    }
}
