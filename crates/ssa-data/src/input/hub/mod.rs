//! Datasets, models and tokenizers of the Hugging Face Hub, by name.
//!
//! With `HF_HUB_OFFLINE` set, names are looked up only in the cache, as in huggingface_hub: files
//! that an earlier download of the same revision left there.

mod model;
mod offline;
mod tokenizer;

use std::env;
use std::path::PathBuf;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;

pub use model::model_directory;
pub use tokenizer::load_tokenizer;

use super::pattern;
use crate::{DataError, Result};

/// The scheme of addresses on the Hub.
pub(super) const SCHEME: &str = "hf://";

const HINT: &str = "check the name and the network; log in for private data (`hf auth login`, or \
                    set HF_TOKEN); files that you already have can be given by their paths";

/// A file of a dataset at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubFile {
    dataset: String,
    commit: String,
    file: String,
}

/// An address: `hf://datasets/OWNER/NAME[@REVISION][/PATTERN]`.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    dataset: String,
    revision: Option<String>,
    pattern: Option<&'a str>,
}

/// The files of a dataset, as listed by the Hub.
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

/// Lists the files of an address, with full names and sizes: those that match its pattern, or
/// without a pattern those that are `wanted`. Downloads nothing.
pub(super) fn list(
    address: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(HubFile, String, Option<u64>)>> {
    let parsed = parse(address).ok_or_else(|| {
        let cause = format!("expected {SCHEME}datasets/OWNER/NAME[@REVISION][/PATTERN]");
        DataError::input(address, cause, "")
    })?;
    let listing = if offline::is_set() {
        offline::listing(&Cache::from_env(), &parsed.dataset, parsed.revision())
    } else {
        online_listing(from_env(), &parsed)
    };
    let listing = listing.map_err(|cause| failed(address, &cause))?;
    choose(address, &parsed, listing, wanted)
}

/// The endpoint, the cache and the user's token, found as by other programs.
fn from_env() -> ApiBuilder {
    let api = ApiBuilder::from_env();
    // The crate itself only reads the token file of a login.
    match env::var("HF_TOKEN") {
        Ok(token) if !token.is_empty() => api.with_token(Some(token)),
        _ => api,
    }
}

fn online_listing(api: ApiBuilder, address: &Address<'_>) -> Result<Listing, String> {
    let repo = repo(&address.dataset, address.revision());
    listing(&connect(api).map_err(|error| error.to_string())?.repo(repo))
}

fn choose(
    address: &str,
    Address { dataset, pattern, .. }: &Address<'_>,
    Listing { sha, siblings }: Listing,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(HubFile, String, Option<u64>)>> {
    let pattern = pattern
        .map(|pattern| pattern::matcher(pattern).map(|matcher| (pattern, matcher)))
        .transpose()
        .map_err(|cause| DataError::input(address, cause, "check the pattern"))?;
    let mut found: Vec<_> = siblings
        .into_iter()
        .filter(|Sibling { rfilename, .. }| match &pattern {
            Some((name, matcher)) => name == rfilename || matcher.is_match(rfilename),
            None => wanted(rfilename),
        })
        .map(|Sibling { rfilename, size }| {
            let name = format!("{SCHEME}datasets/{dataset}@{sha}/{rfilename}");
            let file = HubFile { dataset: dataset.clone(), commit: sha.clone(), file: rfilename };
            (file, name, size)
        })
        .collect();
    if found.is_empty() {
        let hint = "name the files with a pattern; without one .txt, .md, .jsonl, .ndjson (also \
                    compressed) and .parquet files are taken";
        return Err(DataError::input(address, "nothing to read", hint));
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}

/// Downloads a file, unless the cache of the Hub has it (`HF_HOME`, or `~/.cache/huggingface`).
pub(super) fn download(file: &HubFile) -> Result<PathBuf> {
    let HubFile { dataset, commit, file: name } = file;
    if offline::is_set() {
        let cached = offline::file(&Cache::from_env(), dataset, commit, name);
        let cause = "it is not in the cache, and HF_HUB_OFFLINE is set";
        return cached.ok_or_else(|| failed(&file.address(), cause));
    }
    download_with(from_env(), file)
}

fn download_with(api: ApiBuilder, file: &HubFile) -> Result<PathBuf> {
    let repo = repo(&file.dataset, &file.commit);
    connect(api)
        .and_then(|api| api.repo(repo).get(&file.file))
        .map_err(|error| failed(&file.address(), &error.to_string()))
}

fn failed(name: &str, cause: &str) -> DataError {
    DataError::input(name, format!("cannot be read from the Hugging Face Hub: {cause}"), HINT)
}

impl HubFile {
    fn address(&self) -> String {
        format!("{SCHEME}datasets/{}@{}/{}", self.dataset, self.commit, self.file)
    }
}

impl Address<'_> {
    fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
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
        .map_err(|error| format!("the response is not a list of files ({error})"))
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
            // Revisions created by the Hub have slashes: refs/convert/parquet, refs/pr/1.
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
