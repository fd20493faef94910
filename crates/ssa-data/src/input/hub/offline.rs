//! The cache of the Hub, without the network.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo};

use super::{Listing, Sibling, repo};

/// Whether offline mode is set.
pub(super) fn is_set() -> bool {
    env::var("HF_HUB_OFFLINE").is_ok_and(|value| {
        ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
    })
}

/// The commit of a revision, which is a branch, a tag or a commit, and the folder of the cache that
/// holds its files.
pub(super) fn snapshot(
    cache: &Cache,
    repo: &Repo,
    revision: &str,
) -> Result<(String, PathBuf), String> {
    let folder = cache.path().join(repo.folder_name());
    let named = fs::read_to_string(folder.join("refs").join(revision));
    let commit = named.map_or_else(|_| revision.to_owned(), |commit| commit.trim().to_owned());
    let snapshot = folder.join("snapshots").join(&commit);
    if !snapshot.is_dir() {
        let folder = folder.display();
        return Err(format!("{revision} is not in the cache {folder}, and HF_HUB_OFFLINE is set"));
    }
    Ok((commit, snapshot))
}

/// The files that the cache has of a revision.
pub(super) fn listing(cache: &Cache, dataset: &str, revision: &str) -> Result<Listing, String> {
    let (commit, snapshot) = snapshot(cache, &repo(dataset, revision), revision)?;
    let mut siblings = Vec::new();
    walk(&snapshot, "", &mut siblings)
        .map_err(|error| format!("{}: {error}", snapshot.display()))?;
    Ok(Listing { sha: commit, siblings })
}

/// The path of a cached file at a commit. `refs` lists branches and tags, not commits.
pub(super) fn file(cache: &Cache, dataset: &str, commit: &str, name: &str) -> Option<PathBuf> {
    let folder = cache.path().join(repo(dataset, commit).folder_name());
    let file = folder.join("snapshots").join(commit).join(name);
    file.is_file().then_some(file)
}

/// Adds the files of a folder, with paths relative to the snapshot.
fn walk(folder: &Path, prefix: &str, files: &mut Vec<Sibling>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let rfilename = format!("{prefix}{name}");
        // Files are links to blobs.
        let metadata = fs::metadata(entry.path())?;
        if metadata.is_dir() {
            walk(&entry.path(), &format!("{rfilename}/"), files)?;
        } else {
            files.push(Sibling { rfilename, size: Some(metadata.len()) });
        }
    }
    Ok(())
}
