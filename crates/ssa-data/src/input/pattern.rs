//! Glob patterns for paths, expanded as in a shell. Names need not be UTF-8.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use super::entries::{entries, is_hidden};
use crate::Result;

/// Bytes of the longest pattern: as many as a path may have. Matching takes time and memory by the
/// product of the lengths of pattern and name.
const LONGEST: usize = 4096;

/// Whether a path contains a glob character.
pub(super) fn is_pattern(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[{".contains(byte))
}

/// Compiles a pattern. `*` does not match a slash.
pub(super) fn matcher(pattern: &str) -> Result<GlobMatcher, String> {
    if pattern.len() > LONGEST {
        return Err(format!(
            "a pattern of {} bytes: at most {LONGEST} are possible",
            pattern.len()
        ));
    }
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher())
        .map_err(|error| format!("invalid pattern: {}", error.kind()))
}

/// Lists the matching paths, sorted by name. As in a shell, wildcards do not match a leading dot.
///
/// # Errors
/// If the pattern is invalid. An item is an error if a directory cannot be read.
pub(super) fn expand(pattern: &Path) -> Result<Vec<Result<PathBuf>>, String> {
    let mut paths = vec![Ok(PathBuf::new())];
    for component in pattern.components() {
        let part = Path::new(&component);
        let is_name = matches!(component, Component::Normal(_));
        paths = if !is_name || !is_pattern(part) {
            paths.into_iter().map(|path| path.map(|path| path.join(part))).collect()
        } else if part == Path::new("**") {
            paths.into_iter().flat_map(with_directories_below).collect()
        } else {
            let matcher = matcher(&part.to_string_lossy())?;
            let hidden = is_hidden(part);
            let expand = |path: Result<PathBuf>| matching(path, &matcher, hidden);
            paths.into_iter().flat_map(expand).collect()
        };
        // A path that does not exist does not match. Several `**` reach a directory in many ways.
        let mut met = HashSet::new();
        paths.retain(|path| {
            path.as_ref().map_or(true, |path| {
                met.insert(path.clone())
                    && (path.as_os_str().is_empty() || path.symlink_metadata().is_ok())
            })
        });
    }
    Ok(paths)
}

fn matching(
    directory: Result<PathBuf>,
    matcher: &GlobMatcher,
    hidden: bool,
) -> Vec<Result<PathBuf>> {
    let entries = directory.and_then(|directory| list(&directory));
    let matches = |path: &PathBuf| {
        path.file_name().is_some_and(|name| matcher.is_match(name)) && (hidden || !is_hidden(path))
    };
    match entries {
        Ok(entries) => entries.into_iter().filter(matches).map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }
}

fn with_directories_below(directory: Result<PathBuf>) -> Vec<Result<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory];
    while let Some(directory) = open.pop() {
        let below = directory.as_deref().ok().map(list);
        found.push(directory);
        match below {
            Some(Ok(entries)) => {
                let directories = entries.into_iter().rev();
                let directories = directories
                    .filter(|path| path.is_dir() && !path.is_symlink() && !is_hidden(path));
                open.extend(directories.map(Ok));
            }
            Some(Err(error)) => found.push(Err(error)),
            None => {}
        }
    }
    found
}

/// The entries of a directory, named as in the pattern; empty if it is not a directory.
fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    if directory.as_os_str().is_empty() {
        let here = entries(Path::new("."))?;
        return Ok(here.iter().filter_map(|path| path.file_name().map(PathBuf::from)).collect());
    }
    if directory.is_dir() { entries(directory) } else { Ok(Vec::new()) }
}
