//! Tokenizers by name.

use std::path::{Path, PathBuf};

use hf_hub::Cache;
use ssa_text::{BYTES, TOKENIZER_FILES, TOKENIZER_JSON, Tokenizer};

use super::model::HubModel;
use super::offline;
use crate::Result;

/// Loads the tokenizer of a name: `bytes`, a `tokenizer.json`, a directory with one, or a model on
/// the Hub as `hf://OWNER/NAME[@REVISION]`, or as `OWNER/NAME` if there is neither such a path
/// nor a directory `OWNER`.
///
/// # Errors
/// Same as [`Tokenizer::load`]; also if the Hub cannot be reached, or has no such model or
/// tokenizer.
pub fn load_tokenizer(name: &Path, eos_token: Option<&str>) -> Result<Tokenizer> {
    let is_here = name == Path::new(BYTES) || name.exists();
    let path = match if is_here { None } else { HubModel::find(name)? } {
        Some(model) => download(model)?,
        None => name.to_owned(),
    };
    Ok(Tokenizer::load(&path, eos_token)?)
}

/// Downloads the files of a tokenizer; returns its `tokenizer.json`.
fn download(model: HubModel<'_>) -> Result<PathBuf> {
    if offline::is_set() {
        let cached = Cache::from_env().repo(model.repo()).get(TOKENIZER_JSON);
        let cause = format!("no {TOKENIZER_JSON} in the cache, and HF_HUB_OFFLINE is set");
        return cached.ok_or_else(|| model.failed(&cause));
    }
    let repo = model.online()?;
    let get =
        |file: &str| repo.get(file).map_err(|error| model.failed(&format!("{file}: {error}")));
    let tokenizer = get(TOKENIZER_JSON)?;
    let listed = repo.info().map_err(|error| model.failed(&error.to_string()))?.siblings;
    for file in &TOKENIZER_FILES[1..] {
        if listed.iter().any(|sibling| sibling.rfilename == *file) {
            get(file)?;
        }
    }
    Ok(tokenizer)
}
