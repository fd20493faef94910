//! Data sets of the Hugging Face hub, by name.

use std::env;
use std::path::PathBuf;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};
use serde::Deserialize;

use super::Place;
use crate::{DataError, Result};

/// How the name of something on the hub starts.
pub(super) const SCHEME: &str = "hf://";

/// How patterns match: a `*` stays inside a folder, as in a shell.
pub(super) const MATCH: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// A file of a data set at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubFile {
    dataset: String,
    commit: String,
    file: String,
}

/// What is looked for: `hf://datasets/OWNER/NAME[@REVISION][/PATTERN]`.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    dataset: String,
    revision: Option<String>,
    pattern: Option<&'a str>,
}

/// The files of a data set as the hub lists them.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
}

/// The files that an address names, with their full names and sizes: those that match its pattern,
/// or without a pattern those that are `wanted`. Nothing is downloaded yet.
pub(super) fn list(
    address: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(Place, String, Option<u64>)>> {
    list_with(from_env(), address, wanted)
}

/// Where the hub, its cache and the user's token are, as other programs find them.
fn from_env() -> ApiBuilder {
    let api = ApiBuilder::from_env();
    // The crate takes only the token that a login has left in a file.
    match env::var("HF_TOKEN") {
        Ok(token) if !token.is_empty() => api.with_token(Some(token)),
        _ => api,
    }
}

fn list_with(
    api: ApiBuilder,
    address: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(Place, String, Option<u64>)>> {
    let failed = |cause: String| DataError::Hub { name: address.to_owned(), cause };
    let Address { dataset, revision, pattern } = parse(address).ok_or_else(|| {
        let pattern = address.to_owned();
        DataError::BadPattern {
            pattern,
            cause: format!("expected {SCHEME}datasets/OWNER/NAME[@REVISION][/PATTERN]"),
        }
    })?;
    let repo = repo(&dataset, revision.as_deref().unwrap_or("main"));
    let listing = listing(&connect(api).map_err(|error| failed(error.to_string()))?.repo(repo));
    let Listing { sha, siblings } = listing.map_err(failed)?;
    let pattern = pattern
        .map(|pattern| glob::Pattern::new(pattern).map(|parsed| (pattern, parsed)))
        .transpose()
        .map_err(|error| DataError::BadPattern {
            pattern: address.to_owned(),
            cause: error.to_string(),
        })?;
    let mut found: Vec<_> = siblings
        .into_iter()
        .filter(|Sibling { rfilename, .. }| match &pattern {
            Some((name, pattern)) => name == rfilename || pattern.matches_with(rfilename, MATCH),
            None => wanted(rfilename),
        })
        .map(|Sibling { rfilename, size }| {
            let name = format!("{SCHEME}datasets/{dataset}@{sha}/{rfilename}");
            let file = HubFile { dataset: dataset.clone(), commit: sha.clone(), file: rfilename };
            (Place::Hub(file), name, size)
        })
        .collect();
    if found.is_empty() {
        return Err(DataError::NoSources { path: address.to_owned() });
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}

/// Downloads a file, unless the hub's cache has it (`HF_HOME`, or `~/.cache/huggingface`).
pub(super) fn download(file: &HubFile) -> Result<PathBuf> {
    download_with(from_env(), file)
}

fn download_with(api: ApiBuilder, HubFile { dataset, commit, file }: &HubFile) -> Result<PathBuf> {
    connect(api).and_then(|api| api.repo(repo(dataset, commit)).get(file)).map_err(|error| {
        DataError::Hub {
            name: format!("{SCHEME}datasets/{dataset}@{commit}/{file}"),
            cause: error.to_string(),
        }
    })
}

fn connect(api: ApiBuilder) -> Result<Api, ApiError> {
    api.with_progress(false).with_retries(3).build()
}

fn repo(dataset: &str, revision: &str) -> Repo {
    Repo::with_revision(dataset.to_owned(), RepoType::Dataset, revision.to_owned())
}

fn listing(repo: &ApiRepo) -> Result<Listing, String> {
    let response = repo.info_request().query("blobs", "true").call();
    let mut response = response.map_err(|error| error.to_string())?;
    response
        .body_mut()
        .read_json()
        .map_err(|error| format!("the answer is not a list of files ({error})"))
}

fn parse(address: &str) -> Option<Address<'_>> {
    let rest = address.strip_prefix(SCHEME)?.strip_prefix("datasets/")?;
    let (owner, rest) = rest.split_once('/')?;
    let name_end = rest.find(['@', '/']).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(name_end);
    let dataset = format!("{owner}/{name}");
    let (revision, path) = match rest.strip_prefix('@') {
        None => (None, rest.strip_prefix('/')),
        Some(rest) => {
            // The revisions that the hub itself makes have slashes: refs/convert/parquet,
            // refs/pr/1.
            let parts = if rest.starts_with("refs/") { 3 } else { 1 };
            let end = rest.match_indices('/').nth(parts - 1).map_or(rest.len(), |(at, _)| at);
            (Some(rest[..end].to_owned()), rest[end..].strip_prefix('/'))
        }
    };
    let complete = !owner.is_empty() && !name.is_empty() && revision.as_deref() != Some("");
    complete.then(|| Address { dataset, revision, pattern: path.filter(|path| !path.is_empty()) })
}

#[cfg(test)]
mod tests;
