//! Beginning a preparation, or going on with one.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::{PrepareOptions, Work};
use crate::shard::{SourceCount, manifest_paths};
use crate::tokenizer::{CHAT_TEMPLATE, TOKENIZER_CONFIG, TOKENIZER_JSON};
use crate::{DataError, Manifest, Part, PrepareSettings, Result, ShardReader, Tokenizer};

/// A preparation that this process alone may write.
pub(super) struct Begun {
    pub(super) manifest: Manifest,
    _lock: Lock,
}

/// Takes hold of the output directory and finds out where to go on.
pub(super) fn begin(work: &Work, tokenizer: &Tokenizer, options: &PrepareOptions) -> Result<Begun> {
    let directory = &options.output;
    fs::create_dir_all(directory).map_err(|source| DataError::write(directory, source))?;
    let lock = Lock::take(directory, options.part)?;
    let fresh = Manifest::begin(options.part, tokenizer, PrepareSettings::of(options), work.counts());
    let path = directory.join(options.part.manifest_name());
    refuse_other_corpora(directory, options.part, path.exists())?;
    let begun = if path.exists() { Some(Manifest::read(&path)?) } else { None };
    // A preparation without a whole shard has nothing to go on with.
    let manifest = match begun.filter(|begun| begun.resume_at.is_none() || !begun.shards.is_empty()) {
        Some(mut begun) => {
            compare(&path, &begun, &fresh)?;
            check_shards(directory, &begun)?;
            for (source, now) in begun.sources.iter_mut().zip(fresh.sources) {
                source.bytes = now.bytes;
            }
            begun
        }
        None => {
            copy_tokenizer(tokenizer, directory)?;
            fresh.write(directory)?;
            fresh
        }
    };
    Ok(Begun { manifest, _lock: lock })
}

/// Refuses a directory with shards or manifests that are not of this corpus.
fn refuse_other_corpora(directory: &Path, part: Part, begun: bool) -> Result<()> {
    let count = format!("-of-{:03}", part.count);
    for path in manifest_paths(directory)? {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let ours = if part == Part::WHOLE { name == part.manifest_name() } else { name.contains(&count) };
        if !ours {
            return Err(DataError::Exists { path });
        }
    }
    for path in crate::source::entries(directory)? {
        let shard = path.extension().is_some_and(|extension| extension == "idx");
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let ours = if part == Part::WHOLE { begun } else { name.contains(&count) };
        if shard && !ours {
            return Err(DataError::Exists { path });
        }
    }
    Ok(())
}

/// Checks that a preparation was begun as this one would be.
fn compare(path: &Path, begun: &Manifest, now: &Manifest) -> Result<()> {
    let changed = |before: String, now: String| {
        Err(DataError::PreparationChanged { path: path.to_owned(), before, now })
    };
    if begun.tokenizer != now.tokenizer {
        let (before, now) = (&begun.tokenizer, &now.tokenizer);
        return changed(format!("the tokenizer {before:?}"), format!("{now:?}"));
    }
    if begun.settings != now.settings || begun.part != now.part {
        return changed(format!("{:?}", begun.settings), format!("{:?}", now.settings));
    }
    let name = |source: Option<&SourceCount>| match source {
        None => "the end of the inputs".to_owned(),
        Some(SourceCount { name, bytes: None, .. }) => name.clone(),
        Some(SourceCount { name, bytes: Some(bytes), .. }) => format!("{name} ({bytes} bytes)"),
    };
    // Of what is not read yet, only the names matter: a file that was damaged may have been corrected.
    let read =
        begun.resume_at.map_or(usize::MAX, |position| position.source + usize::from(position.record > 0));
    for number in 0..begun.sources.len().max(now.sources.len()) {
        let (before, after) = (begun.sources.get(number), now.sources.get(number));
        let same = |key: fn(&SourceCount) -> Option<u64>| before.map(key) == after.map(key);
        let same_name = before.map(|source| &source.name) == after.map(|source| &source.name);
        if !same_name || (number < read && !same(|source| source.bytes)) {
            return changed(name(before), name(after));
        }
    }
    Ok(())
}

/// Checks that the shards made before are still there and whole.
fn check_shards(directory: &Path, manifest: &Manifest) -> Result<()> {
    for shard in &manifest.shards {
        let reader = ShardReader::open(&directory.join(format!("{}.idx", shard.name)))?;
        if (reader.documents() as u64, reader.tokens()) != (shard.documents, shard.tokens) {
            let cause = "it is not the shard that the manifest lists".to_owned();
            return Err(DataError::DamagedShard { path: reader.path().to_owned(), cause });
        }
    }
    Ok(())
}

/// Keeps the tokenizer with the tokens it makes, which are worth nothing without it.
fn copy_tokenizer(tokenizer: &Tokenizer, directory: &Path) -> Result<()> {
    let Tokenizer::Hf(tokenizer) = tokenizer else {
        return Ok(());
    };
    let mut files = vec![(tokenizer.path().to_owned(), TOKENIZER_JSON)];
    for name in [TOKENIZER_CONFIG, CHAT_TEMPLATE] {
        files.push((tokenizer.path().with_file_name(name), name));
    }
    for (from, name) in files {
        let to = directory.join(name);
        let same = |a: &Path, b: &Path| fs::canonicalize(a).ok() == fs::canonicalize(b).ok();
        if from.exists() && !same(&from, &to) {
            // Read first: a copy would create the file even if the original cannot be read.
            let bytes = fs::read(&from).map_err(|source| DataError::from_open(&from, source))?;
            fs::write(&to, bytes).map_err(|source| DataError::write(&to, source))?;
        }
    }
    Ok(())
}

/// The right to write a part of a corpus, until it is dropped or the process ends.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(directory: &Path, part: Part) -> Result<Self> {
        let path = directory.join(part.manifest_name()).with_extension("lock");
        let file = File::create(&path).map_err(|source| DataError::write(&path, source))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(DataError::InUse { path: directory.to_owned() }),
            // Some network file systems have no locks: there the user takes care.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Self { path, _file: file }),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Best effort: an unlocked file that stays does no harm.
        let _ = fs::remove_file(&self.path);
    }
}
