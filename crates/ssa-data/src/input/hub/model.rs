//! Models by the name that a user gives.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::ApiRepo;
use hf_hub::{Cache, Repo, RepoType};
use ssa_text::TOKENIZER_FILES;

use super::{HINT, SCHEME, connect, failed, from_env, offline};
use crate::{DataError, Result};

/// The configuration, which every model has.
const CONFIG: &str = "config.json";
/// The weights in one file.
const WEIGHTS: &str = "model.safetensors";
/// Which shard has which tensor.
const INDEX: &str = "model.safetensors.index.json";
/// How the model is meant to generate.
const GENERATION_CONFIG: &str = "generation_config.json";

/// A model of the Hub at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HubModel<'a> {
    name: &'a str,
    revision: &'a str,
}

/// The directory of a model: a path that exists, or a model of the Hub, as
/// `hf://OWNER/NAME[@REVISION]`, or as `OWNER/NAME[@REVISION]` if there is neither such a path nor
/// a directory `OWNER`. What the model needs of a repository is downloaded into the cache of the Hub, unless it is there:
/// configuration, safetensors weights and tokenizer.
///
/// # Errors
/// [`DataError::Missing`] for a path that does not exist and is no name of a model;
/// [`DataError::Input`] for one in a directory that exists, or if the Hub cannot be reached, or has no such model or no weights of it in
/// the safetensors format.
pub fn model_directory(name: &Path) -> Result<PathBuf> {
    if name.exists() {
        return Ok(name.to_owned());
    }
    HubModel::find(name)?.ok_or_else(|| DataError::Missing { path: name.to_owned() })?.fetch()
}

impl<'a> HubModel<'a> {
    /// The model that a path which does not exist may stand for. In a directory that exists it is
    /// a misspelled path.
    pub(super) fn find(path: &'a Path) -> Result<Option<Self>> {
        let Some(model) = path.to_str().and_then(Self::parse) else { return Ok(None) };
        match path.parent().filter(|owner| owner.is_dir()) {
            Some(owner) if !path.starts_with(SCHEME) => Err(DataError::input(
                path.display().to_string(),
                format!("there is no such entry in the directory {}", owner.display()),
                format!(
                    "check the spelling, or write {SCHEME}{} for a model of the Hub",
                    model.name
                ),
            )),
            _ => Ok(Some(model)),
        }
    }

    /// The model that a name may stand for.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let named = name.strip_prefix(SCHEME);
        let rest = named.unwrap_or(name);
        let rest = rest.strip_prefix("models/").filter(|_| named.is_some()).unwrap_or(rest);
        let (model, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let (owner, repository) = model.split_once('/')?;
        let is_name = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        // What ends like a file is one that is missing.
        let is_file = named.is_none() && repository.ends_with(".json");
        (is_name(owner) && is_name(repository) && !is_file && !revision.is_empty())
            .then_some(Self { name: model, revision })
    }

    /// Its repository.
    pub(super) fn repo(self) -> Repo {
        Repo::with_revision(self.name.to_owned(), RepoType::Model, self.revision.to_owned())
    }

    /// The error for a model that cannot be had.
    pub(super) fn failed(self, cause: &str) -> DataError {
        failed(&format!("{SCHEME}{}@{}", self.name, self.revision), cause)
    }

    /// Its repository on the Hub.
    pub(super) fn online(self) -> Result<ApiRepo> {
        let api = connect(from_env()).map_err(|error| self.failed(&error.to_string()))?;
        Ok(api.repo(self.repo()))
    }

    fn fetch(self) -> Result<PathBuf> {
        if !offline::is_set() {
            return self.download(&self.online()?);
        }
        let repo = self.repo();
        let (_, snapshot) = offline::snapshot(&Cache::from_env(), &repo, self.revision)
            .map_err(|cause| self.failed(&cause))?;
        match snapshot.join(CONFIG).is_file() {
            true => Ok(snapshot),
            false => Err(self.failed(&format!(
                "no {CONFIG} in the cache {}, and HF_HUB_OFFLINE is set",
                snapshot.display()
            ))),
        }
    }

    /// Downloads the files of the model; returns the directory of the cache that holds them.
    fn download(self, repo: &ApiRepo) -> Result<PathBuf> {
        let listed = repo.info().map_err(|error| self.failed(&error.to_string()))?.siblings;
        let listed: Vec<String> = listed.into_iter().map(|file| file.rfilename).collect();
        let get =
            |file: &str| repo.get(file).map_err(|error| self.failed(&format!("{file}: {error}")));
        let config = get(CONFIG)?;
        let files = wanted(&listed).ok_or_else(|| {
            let name = format!("{SCHEME}{}@{}", self.name, self.revision);
            DataError::input(name, "it has no weights in the safetensors format", HINT)
        })?;
        files.into_iter().try_for_each(|file| get(file).map(drop))?;
        Ok(config.parent().map_or_else(PathBuf::new, Path::to_owned))
    }
}

/// The files of a repository that a model needs besides its configuration: weights in one file, or
/// else in shards; and what it has of a tokenizer. `None` without weights.
fn wanted(listed: &[String]) -> Option<Vec<&str>> {
    let is_shard = |file: &&str| {
        file.starts_with("model-") && file.ends_with(".safetensors") || *file == INDEX
    };
    let has = |name: &&str| listed.iter().any(|file| file == name);
    let files: Vec<&str> = match has(&WEIGHTS) {
        true => vec![WEIGHTS],
        false => listed.iter().map(String::as_str).filter(is_shard).collect(),
    };
    if !files.iter().any(|file| [WEIGHTS, INDEX].contains(file)) {
        return None;
    }
    let others = TOKENIZER_FILES.into_iter().chain([GENERATION_CONFIG]).filter(has);
    Some(files.into_iter().chain(others).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_are_told_from_paths() {
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
            let expected = expected.map(|(name, revision)| HubModel { name, revision });
            assert_eq!(HubModel::parse(name), expected, "{name}");
        }
    }

    #[test]
    fn weights_are_taken_once() {
        let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let listed = |files: &[&str]| files.iter().map(|&file| file.to_owned()).collect::<Vec<_>>();
        let all = listed(&[&[WEIGHTS, INDEX, "x.bin", "tokenizer.json"], &shards[..]].concat());
        assert_eq!(wanted(&all).unwrap(), [WEIGHTS, "tokenizer.json"]);
        let sharded = listed(&[&[INDEX, "generation_config.json"], &shards[..]].concat());
        assert_eq!(
            wanted(&sharded).unwrap(),
            [INDEX, shards[0], shards[1], "generation_config.json"]
        );
        assert_eq!(wanted(&listed(&["pytorch_model.bin", "tokenizer.json"])), None);
    }

    #[test]
    fn paths_are_found_first_and_missed_by_name() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(model_directory(directory.path()).unwrap(), directory.path());
        let absent = directory.path().join("absent");
        let error = model_directory(&absent).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: no such file", absent.display())), "{error}");
        // Tests run in the directory of the crate.
        let error = model_directory(Path::new("src/absent")).unwrap_err().to_string();
        assert!(error.starts_with("src/absent: there is no such entry"), "{error}");
        assert!(error.ends_with("or write hf://src/absent for a model of the Hub"), "{error}");
    }
}
