//! The text files of the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// Skipped directories: build output, runs, records of measurements, and the text of the demo.
const SKIPPED: [&str; 6] =
    [".git", "target", "runs", "shared", "benchmarks/results", "crates/ssa-data/corpus"];

/// Extensions of the checked files.
const ENDINGS: [&str; 9] = ["rs", "cu", "cuh", "md", "toml", "py", "sh", "html", "css"];

/// A text file.
pub(crate) struct File {
    /// Its path relative to the root of the repository, with slashes.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All text files of the repository, sorted by name.
pub(crate) fn all() -> Vec<File> {
    let mut files = Vec::new();
    collect(&root(), &root(), &mut files);
    files.sort_by(|left, right| left.name.cmp(&right.name));
    assert!(files.len() > 300, "{} files only: is this the repository?", files.len());
    files
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        if SKIPPED.contains(&name.as_str()) {
            continue;
        }
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if path.is_dir() {
            collect(root, &path, files);
        } else if ENDINGS.contains(&ending) || name == ".ci/run" {
            files.push(File { text: fs::read_to_string(&path).unwrap(), name });
        }
    }
}

/// Fails with all findings outside the allowed files, and with allowed files without findings, so
/// the list must shrink as files are corrected.
#[track_caller]
pub(crate) fn check(rule: &str, findings: &[(String, String)], allowed: &[&str]) {
    let covers = |prefix: &&str, name: &String| name.starts_with(*prefix);
    let forbidden: Vec<String> = findings
        .iter()
        .filter(|(name, _)| !allowed.iter().any(|prefix| covers(prefix, name)))
        .map(|(name, what)| format!("{name}:{what}"))
        .collect();
    assert!(forbidden.is_empty(), "{rule}:\n{}", forbidden.join("\n"));
    let stale: Vec<_> = allowed
        .iter()
        .filter(|prefix| !findings.iter().any(|(name, _)| covers(prefix, name)))
        .collect();
    assert!(stale.is_empty(), "{rule}: delete these exceptions, nothing needs them: {stale:?}");
}
