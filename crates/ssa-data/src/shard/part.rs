//! How the preparation of a corpus is divided over machines, and the names of the files that follow
//! from it.

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
    /// The whole.
    pub const WHOLE: Self = Self { index: 1, count: 1 };

    /// A part.
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

    /// The first part of the same whole that is not among these. It takes no longer than there are
    /// parts present, whatever their count says.
    pub(crate) fn first_missing(self, present: &BTreeSet<Self>) -> Option<Self> {
        let parts = (1..=self.count).map(|index| Self { index, ..self });
        parts.take(present.len() + 1).find(|part| !present.contains(part))
    }

    /// Whether the numbers can be those of a part.
    pub(crate) fn is_valid(self) -> bool {
        (1..=self.count).contains(&self.index)
    }

    /// The name of its manifest.
    pub fn manifest_name(self) -> String {
        self.name(MANIFEST) + ".json"
    }

    /// The name of the file that keeps the state of its preparation.
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

    /// Whether a file can be of this part, or of another part of the same whole.
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

/// The manifests and unfinished preparations of a directory, by name.
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
