//! From the inputs a user names to sources, in an order that depends on names alone.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::compressed::uncompressed_name;
use super::{Content, Format, InputOptions, Place, Source, hub};
use crate::source::{PROBE_BYTES, canonical, entries, is_hidden};
use crate::{DataError, Result};

/// What the inputs hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The sources, in the order of the inputs, and by name below a directory or pattern.
    pub sources: Vec<Source>,
    /// Files that were passed over below a directory: of an unknown kind, binary or empty.
    pub skipped: Vec<PathBuf>,
}

impl Sources {
    /// Size of all files as they are stored, as far as it is known.
    pub fn bytes(&self) -> u64 {
        self.sources.iter().filter_map(Source::bytes).sum()
    }
}

/// Finds the sources of inputs: files, directories (recursively), patterns with `*`, `?`, `[..]`
/// and `**`, `hf://datasets/OWNER/NAME[@REVISION][/PATTERN]`, and `-`, the standard input.
///
/// A path that exists is never taken as a pattern. Hidden entries of a directory are skipped, links
/// are followed, and every file is taken once.
///
/// # Errors
/// An input names nothing, cannot be read, is an empty file, or holds nothing of a known kind; the
/// hub cannot be reached or has no such data set; the standard input is given without a format.
pub fn find_sources(inputs: &[PathBuf], options: &InputOptions) -> Result<Sources> {
    if inputs.is_empty() {
        return Err(DataError::NoPaths);
    }
    let mut finder = Finder { options, found: Sources::default(), met: HashSet::new(), taken: 0 };
    for input in inputs {
        finder.take_input(input)?;
    }
    Ok(finder.found)
}

struct Finder<'a> {
    options: &'a InputOptions,
    found: Sources,
    /// Canonical path of every file and directory met so far.
    met: HashSet<PathBuf>,
    /// Files taken, those included that had been taken before.
    taken: usize,
}

impl Finder<'_> {
    fn take_input(&mut self, input: &Path) -> Result<()> {
        let name = input.to_str().unwrap_or_default();
        if name == "-" {
            return self.take_stdin();
        }
        if name.starts_with(hub::SCHEME) {
            let wanted = |file: &str| self.content_in_directory(Path::new(file)).is_some();
            let files = hub::list(name, wanted)?;
            for (place, name, bytes) in files {
                let content = self.content(Path::new(&name));
                self.found.sources.push(Source { name, place, content, bytes });
            }
            return Ok(());
        }
        match fs::metadata(input) {
            Ok(metadata) if metadata.is_dir() => self.take_directory(input),
            Ok(metadata) => self.take_named(input, &metadata),
            Err(_) if name.contains(['*', '?', '[']) => self.take_pattern(name),
            Err(source) => Err(DataError::from_open(input, source)),
        }
    }

    fn take_stdin(&mut self) -> Result<()> {
        let content = match self.options.format {
            Format::Auto => {
                return Err(DataError::setting(
                    "format",
                    "text or jsonl for the standard input",
                    "auto",
                ));
            }
            Format::Text => Content::Text,
            Format::Jsonl => Content::Jsonl,
        };
        if self.met.insert(PathBuf::from("-")) {
            let name = "standard input".to_owned();
            self.found.sources.push(Source { name, place: Place::Stdin, content, bytes: None });
        }
        Ok(())
    }

    /// Takes a file that was named itself, whatever its kind.
    fn take_named(&mut self, path: &Path, metadata: &Metadata) -> Result<()> {
        if metadata.is_file() && metadata.len() == 0 {
            return Err(DataError::EmptyFile { path: path.to_owned() });
        }
        self.push(path, self.content(path), metadata);
        Ok(())
    }

    fn take_pattern(&mut self, pattern: &str) -> Result<()> {
        let bad = |cause: String| DataError::BadPattern { pattern: pattern.to_owned(), cause };
        let options = glob::MatchOptions { require_literal_leading_dot: true, ..hub::MATCH };
        let before = self.taken;
        // The matches come in the order of their names.
        for path in glob::glob_with(pattern, options).map_err(|error| bad(error.to_string()))? {
            let path = path.map_err(|error| {
                let path = error.path().to_owned();
                DataError::Unreadable { path, source: error.into() }
            })?;
            let metadata =
                fs::metadata(&path).map_err(|source| DataError::from_open(&path, source))?;
            if metadata.is_dir() {
                self.walk(&path)?;
            } else if metadata.len() > 0 {
                self.push(&path, self.content(&path), &metadata);
            } else {
                self.found.skipped.push(path);
            }
        }
        if self.taken == before {
            return Err(bad("no file matches".to_owned()));
        }
        Ok(())
    }

    fn take_directory(&mut self, directory: &Path) -> Result<()> {
        let before = self.taken;
        self.walk(directory)?;
        if self.taken == before {
            return Err(DataError::NoSources { path: directory.display().to_string() });
        }
        Ok(())
    }

    fn walk(&mut self, directory: &Path) -> Result<()> {
        // A loop of links ends here.
        if !self.met.insert(canonical(directory)) {
            return Ok(());
        }
        for path in entries(directory)?.iter().filter(|path| !is_hidden(path)) {
            match fs::metadata(path) {
                Ok(metadata) if metadata.is_dir() => self.walk(path)?,
                Ok(metadata) if metadata.is_file() => self.take_entry(path, &metadata)?,
                Ok(_) => {}
                Err(_) if path.is_symlink() => {}
                Err(source) => return Err(DataError::from_open(path, source)),
            }
        }
        Ok(())
    }

    /// Takes a file of a directory if it is of a known kind and not empty.
    fn take_entry(&mut self, path: &Path, metadata: &Metadata) -> Result<()> {
        match self.content_in_directory(path).filter(|_| metadata.len() > 0) {
            Some(Content::Text) if is_binary(path)? => self.found.skipped.push(path.to_owned()),
            Some(content) => self.push(path, content, metadata),
            None => self.found.skipped.push(path.to_owned()),
        }
        Ok(())
    }

    fn push(&mut self, path: &Path, content: Content, metadata: &Metadata) {
        self.taken += 1;
        if self.met.insert(canonical(path)) {
            let bytes = metadata.is_file().then_some(metadata.len());
            let name = path.display().to_string();
            self.found.sources.push(Source {
                name,
                place: Place::File(path.to_owned()),
                content,
                bytes,
            });
        }
    }

    /// What a file holds that was named itself.
    fn content(&self, path: &Path) -> Content {
        match self.options.format {
            Format::Auto => known_content(path).unwrap_or(Content::Text),
            Format::Text => Content::Text,
            Format::Jsonl => Content::Jsonl,
        }
    }

    /// What a file of a directory holds; nothing if it should be passed over.
    fn content_in_directory(&self, path: &Path) -> Option<Content> {
        match self.options.format {
            // A single .json file in a folder is most often a description of the others.
            Format::Auto => known_content(path).filter(|_| !has_extension(path, "json")),
            Format::Text => Some(Content::Text),
            Format::Jsonl => known_content(path).filter(|content| *content == Content::Jsonl),
        }
    }
}

fn known_content(path: &Path) -> Option<Content> {
    let is = |extension| has_extension(path, extension);
    if path.extension().is_some_and(|extension| extension == "parquet") {
        // A Parquet file compresses its own pages.
        Some(Content::Parquet)
    } else if is("txt") || is("md") {
        Some(Content::Text)
    } else if is("jsonl") || is("ndjson") || is("json") {
        Some(Content::Jsonl)
    } else {
        None
    }
}

/// Whether a name ends so, before the ending of its compression.
fn has_extension(path: &Path, wanted: &str) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    Path::new(uncompressed_name(&name)).extension().is_some_and(|extension| extension == wanted)
}

/// Whether a file that is not compressed starts like something else than text.
fn is_binary(path: &Path) -> Result<bool> {
    let name = path.to_string_lossy();
    if uncompressed_name(&name) != name {
        return Ok(false);
    }
    let mut probe = Vec::new();
    File::open(path)
        .and_then(|file| file.take(PROBE_BYTES).read_to_end(&mut probe))
        .map_err(|source| DataError::from_open(path, source))?;
    Ok(probe.contains(&0))
}
