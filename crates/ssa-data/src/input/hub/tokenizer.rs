//! Tokenizers by name.

use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};
use ssa_text::{BYTES, TOKENIZER_FILES, TOKENIZER_JSON, Tokenizer};

use super::{SCHEME, connect, failed, from_env, offline};
use crate::Result;

/// Loads the tokenizer of a name: `bytes`, a `tokenizer.json`, a directory with one, or a model on
/// the Hub as `hf://OWNER/NAME[@REVISION]`, or as `OWNER/NAME` if no such path exists.
///
/// # Errors
/// Same as [`Tokenizer::load`]; also if the Hub cannot be reached, or has no such model or
/// tokenizer.
pub fn load_tokenizer(name: &Path, eos_token: Option<&str>) -> Result<Tokenizer> {
    let path = match name.to_str().and_then(|name| model(name)) {
        Some((model, revision)) if name != Path::new(BYTES) && !name.exists() => {
            download(model, revision)?
        }
        _ => name.to_owned(),
    };
    Ok(Tokenizer::load(&path, eos_token)?)
}

/// The model and the revision in a name, if it can be one on the Hub.
fn model(name: &str) -> Option<(&str, &str)> {
    let named = name.strip_prefix(SCHEME);
    let rest = named.unwrap_or(name);
    let rest = rest.strip_prefix("models/").filter(|_| named.is_some()).unwrap_or(rest);
    let (model, revision) = rest.split_once('@').unwrap_or((rest, "main"));
    let (owner, repository) = model.split_once('/')?;
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    // A name with a file extension is a missing file.
    let is_file = named.is_none() && repository.ends_with(".json");
    (is_name(owner) && is_name(repository) && !is_file && !revision.is_empty())
        .then_some((model, revision))
}

/// Downloads the files of a tokenizer; returns its `tokenizer.json`.
fn download(model: &str, revision: &str) -> Result<PathBuf> {
    let repo = || Repo::with_revision(model.to_owned(), RepoType::Model, revision.to_owned());
    let failed = |cause: String| failed(&format!("{SCHEME}{model}@{revision}"), &cause);
    if offline::is_set() {
        let cached = Cache::from_env().repo(repo()).get(TOKENIZER_JSON);
        let cause = || format!("no {TOKENIZER_JSON} in the cache, and HF_HUB_OFFLINE is set");
        return cached.ok_or_else(|| failed(cause()));
    }
    let api = connect(from_env()).map_err(|error| failed(error.to_string()))?.repo(repo());
    let tokenizer =
        api.get(TOKENIZER_JSON).map_err(|error| failed(format!("{TOKENIZER_JSON}: {error}")))?;
    let listed = api.info().map_err(|error| failed(error.to_string()))?.siblings;
    for file in &TOKENIZER_FILES[1..] {
        if listed.iter().any(|sibling| sibling.rfilename == *file) {
            api.get(file).map_err(|error| failed(format!("{file}: {error}")))?;
        }
    }
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_are_distinguished_from_paths() {
        for (name, expected) in [
            ("hf://Qwen/Qwen3-0.6B", Some(("Qwen/Qwen3-0.6B", "main"))),
            ("hf://models/a/b@v1", Some(("a/b", "v1"))),
            ("a/b", Some(("a/b", "main"))),
            ("a/tokenizer.json", None),
            ("./a/b", None),
            ("/a/b", None),
            ("a/b/c", None),
            ("a", None),
            ("a/b@", None),
        ] {
            assert_eq!(model(name), expected, "{name}");
        }
    }
}
