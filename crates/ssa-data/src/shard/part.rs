//! How machines share the preparation of a corpus, and the resulting file names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{DataError, Result};

const MANIFEST: &str = "manifest";
const PREPARATION: &str = "preparation";

/// One machine's part of a preparation, written `index/count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// From 1 to `count`.
    pub index: usize,
    /// Number of parts.
    pub count: usize,
}

impl Part {
    /// The whole corpus.
    pub const WHOLE: Self = Self { index: 1, count: 1 };

    /// Creates a part.
    ///
    /// # Errors
    /// [`DataError::Setting`] unless `index` is from 1 to `count`.
    pub fn new(index: usize, count: usize) -> Result<Self> {
        let part = Self { index, count };
        if part.is_valid() {
            Ok(part)
        } else {
            Err(DataError::setting("part", "i/n with i from 1 to n", format!("{index}/{count}")))
        }
    }

    /// The first part of the same corpus that is not in `present`. Its time depends on the number
    /// of present parts, not on `count`.
    pub(crate) fn first_missing(self, present: &BTreeSet<Self>) -> Option<Self> {
        let parts = (1..=self.count).map(|index| Self { index, ..self });
        parts.take(present.len() + 1).find(|part| !present.contains(part))
    }

    /// Whether the index is within the count.
    pub(crate) fn is_valid(self) -> bool {
        (1..=self.count).contains(&self.index)
    }

    /// The file name of its manifest.
    pub fn manifest_name(self) -> String {
        self.name(MANIFEST) + ".json"
    }

    /// The file name of its preparation state.
    pub(crate) fn preparation_name(self) -> String {
        self.name(PREPARATION) + ".json"
    }

    /// The name of a shard, without extension.
    pub(crate) fn shard_name(self, number: usize) -> String {
        match self {
            Self::WHOLE => format!("{number:05}"),
            _ => self.name("part") + &format!("-{number:05}"),
        }
    }

    /// Whether a file can belong to this part, or to another part of the same corpus.
    pub(crate) fn shares_directory_with(self, name: &str) -> bool {
        let shared = format!("-of-{:03}", self.count);
        if self == Self::WHOLE { !name.contains("-of-") } else { name.contains(&shared) }
    }

    fn name(self, what: &str) -> String {
        match self {
            Self::WHOLE => what.to_owned(),
            Self { index, count } => format!("{what}-{index:03}-of-{count:03}"),
        }
    }
}

/// The manifests and unfinished preparations in a directory, sorted by name.
pub(crate) struct PartFiles {
    pub(crate) manifests: Vec<PathBuf>,
    pub(crate) preparations: Vec<PathBuf>,
}

impl PartFiles {
    pub(crate) fn of(directory: &Path) -> Result<Self> {
        let mut files = crate::input::entries(directory)?;
        files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        let starting_with = |start: &str| {
            let is_one = |path: &&PathBuf| {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                stem.strip_prefix(start)
                    .is_some_and(|rest| rest.is_empty() || rest.contains("-of-"))
            };
            files.iter().filter(is_one).cloned().collect()
        };
        Ok(Self { manifests: starting_with(MANIFEST), preparations: starting_with(PREPARATION) })
    }
}
