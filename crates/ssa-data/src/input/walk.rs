//! From inputs to sources, in an order that depends on names only.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ssa_text::{Document, Tokenizer};

use super::entries::{canonical, entries, is_hidden};
use super::source::{Location, Source};
use super::stream::Opened;
use super::{Format, InputOptions, documents, hub, kind, pattern, refused, stream};
use crate::{DataError, Result};

/// The sources of the inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The sources, in the order of the inputs, sorted by name within a directory or pattern.
    pub sources: Vec<Source>,
    /// Files skipped in directories: unsupported, binary or empty.
    pub skipped: Vec<PathBuf>,
}

impl Sources {
    /// Stored size of all files whose size is known.
    pub fn bytes(&self) -> u64 {
        self.sources.iter().filter_map(Source::bytes).sum()
    }
}

/// Reads the documents of files and directories into memory, with the defaults of [`find_sources`]:
/// the text of plain files, and the field `text` of JSON and Parquet.
///
/// # Errors
/// Same as [`find_sources`] and [`documents`].
pub fn read_documents(paths: &[PathBuf]) -> Result<Vec<Document>> {
    let options = InputOptions::default();
    let sources = find_sources(paths, &options)?;
    documents(&sources, &options, &Tokenizer::Bytes).collect()
}

/// Finds the sources of inputs: files, directories (recursively), patterns with `*`, `?`, `[..]`,
/// `{..}` and `**`, `hf://datasets/OWNER/NAME[@REVISION][/PATTERN]`, and `-` for standard input.
///
/// * An existing path is never treated as a pattern.
/// * An explicitly named file is read even if it is hidden, binary or a pipe, unless its kind is
///   unsupported.
/// * Inside a directory, hidden entries (with a leading dot), empty, binary and unsupported files,
///   and entries that are not files (sockets, pipes, broken links) are skipped.
/// * Links are followed, and every file and directory is read once, no matter how many paths lead
///   to it. So link loops end, and a file given twice cannot end up on both sides of a split.
///
/// # Errors
/// If an input does not exist, cannot be read, is empty or unsupported; if the Hub cannot be
/// reached or does not have the dataset; or if standard input is given without a format. An
/// unreadable entry inside a directory is also an error: silently training on less text would be
/// worse.
pub fn find_sources(inputs: &[PathBuf], options: &InputOptions) -> Result<Sources> {
    if inputs.is_empty() {
        return Err(DataError::NoPaths);
    }
    let found = Sources::default();
    let mut finder =
        Finder { format: options.format, found, met: HashMap::new(), taken: HashSet::new() };
    for input in inputs {
        finder.take_input(input)?;
    }
    Ok(finder.found)
}

struct Finder {
    format: Format,
    found: Sources,
    /// Canonical path of every directory visited so far, and whether it had files to read.
    met: HashMap<PathBuf, bool>,
    /// Canonical path of every file to read.
    taken: HashSet<PathBuf>,
}

impl Finder {
    fn take_input(&mut self, input: &Path) -> Result<()> {
        let name = input.to_str().unwrap_or_default();
        if name == "-" {
            return self.take_stdin();
        }
        if name.starts_with(hub::SCHEME) {
            let files = hub::list(name, |file| kind::is_data_by_name(file, self.format))?;
            let sources = files
                .into_iter()
                .map(|(file, name, bytes)| Source::new(name, Location::Hub(file), bytes));
            self.found.sources.extend(sources);
            return Ok(());
        }
        match fs::metadata(input) {
            Ok(metadata) if metadata.is_dir() => self.take_directory(input),
            Ok(metadata) => self.take_named(input, &metadata),
            Err(_) if pattern::is_pattern(input) => self.take_pattern(input),
            Err(source) => Err(DataError::from_open(input, source)),
        }
    }

    fn take_stdin(&mut self) -> Result<()> {
        if self.format == Format::Auto {
            let expected = "text or jsonl for standard input";
            return Err(DataError::setting("format", expected, "auto"));
        }
        if self.taken.insert(PathBuf::from("-")) {
            let name = "standard input".to_owned();
            self.found.sources.push(Source::new(name, Location::Stdin, None));
        }
        Ok(())
    }

    /// Adds an explicitly named file, unless its kind is unsupported.
    fn take_named(&mut self, path: &Path, metadata: &Metadata) -> Result<()> {
        if metadata.is_file() {
            if metadata.len() == 0 {
                let hint = "leave it out, or check the program that wrote it";
                return Err(DataError::input(
                    path.display().to_string(),
                    "the file is empty",
                    hint,
                ));
            }
            if let Some(Opened::Refused(refusal)) = self.open(path)? {
                return Err(refused(&path.display().to_string(), refusal));
            }
        }
        self.push(path, metadata, false);
        Ok(())
    }

    fn take_pattern(&mut self, input: &Path) -> Result<()> {
        let bad = |cause: String| {
            let hint = "check the pattern; relative patterns start at the working directory";
            DataError::input(input.display().to_string(), cause, hint)
        };
        let mut found = false;
        for path in pattern::expand(input).map_err(bad)? {
            let path = path?;
            let metadata =
                fs::metadata(&path).map_err(|source| DataError::from_open(&path, source))?;
            if metadata.is_dir() {
                found |= self.walk(&path)?;
            } else if metadata.is_file() && metadata.len() == 0 {
                self.found.skipped.push(path);
            } else {
                self.take_named(&path, &metadata)?;
                found = true;
            }
        }
        if found { Ok(()) } else { Err(bad("no file matches".to_owned())) }
    }

    fn take_directory(&mut self, directory: &Path) -> Result<()> {
        if self.walk(directory)? {
            return Ok(());
        }
        let (cause, hint) = match self.format {
            Format::Jsonl => ("nothing to read", "name files that do not end with .jsonl"),
            Format::Auto | Format::Text => (
                "nothing to read: hidden entries and empty, binary or unsupported files are \
                 skipped",
                "name such a file explicitly to read it",
            ),
        };
        Err(DataError::input(directory.display().to_string(), cause, hint))
    }

    /// Adds the files of a directory; returns whether there was any.
    fn walk(&mut self, directory: &Path) -> Result<bool> {
        let key = canonical(directory);
        if let Some(&known) = self.met.get(&key) {
            return Ok(known);
        }
        // Recorded before the walk: this ends link loops.
        self.met.insert(key.clone(), false);
        let mut found = false;
        for path in entries(directory)?.iter().filter(|path| !is_hidden(path)) {
            match fs::metadata(path) {
                Ok(metadata) if metadata.is_dir() => found |= self.walk(path)?,
                Ok(metadata) if metadata.is_file() => found |= self.take_entry(path, &metadata)?,
                Ok(_) => {}
                Err(_) if path.is_symlink() => {}
                Err(source) => return Err(DataError::from_open(path, source)),
            }
        }
        self.met.insert(key, found);
        Ok(found)
    }

    /// Adds a file of a directory if it is not empty and supported, or was named explicitly.
    fn take_entry(&mut self, path: &Path, metadata: &Metadata) -> Result<bool> {
        if self.taken.contains(&canonical(path)) {
            return Ok(true);
        }
        let taken = metadata.len() > 0
            && match self.open(path)? {
                Some(Opened::Refused(_)) => false,
                None => true,
                Some(Opened::Stream(stream)) => {
                    let name = path.to_string_lossy();
                    kind::is_taken_in_directory(&name, &stream.start, stream.content, self.format)
                }
            };
        if taken {
            self.push(path, metadata, true);
        } else {
            self.found.skipped.push(path.to_owned());
        }
        Ok(taken)
    }

    /// Opens a file to inspect its start. `None` if it is corrupt, which will be an error when it
    /// is read.
    fn open(&self, path: &Path) -> Result<Option<Opened>> {
        match stream::open(Some(path), &path.to_string_lossy(), self.format, Arc::default()) {
            Err(DataError::Input { .. }) => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn push(&mut self, path: &Path, metadata: &Metadata, listed: bool) {
        if self.taken.insert(canonical(path)) {
            let bytes = metadata.is_file().then_some(metadata.len());
            let (name, location) = (path.display().to_string(), Location::File(path.to_owned()));
            self.found.sources.push(Source { listed, ..Source::new(name, location, bytes) });
        }
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
