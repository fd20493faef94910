//! The paths in a configuration.

use std::path::{Path, PathBuf};

use super::{ConfigError, TrainConfig};

impl TrainConfig {
    /// Returns this configuration with relative paths resolved against `directory`. Paths that do
    /// not exist there stay unchanged, as do the names of built-in tokenizers.
    pub fn in_directory(&self, directory: &Path) -> Self {
        let mut config = self.clone();
        for (_, path) in config.paths_mut() {
            let joined = directory.join(&path);
            if path.is_relative() && joined.exists() {
                *path = joined;
            }
        }
        config
    }

    /// Checks that all paths are UTF-8, as `config.toml` is.
    ///
    /// # Errors
    /// [`ConfigError::Value`] names the key.
    pub(crate) fn check_paths(&self) -> Result<(), ConfigError> {
        match self.clone().paths_mut().into_iter().find(|(_, path)| path.to_str().is_none()) {
            None => Ok(()),
            Some((key, path)) => Err(ConfigError::Value {
                key: key.to_owned(),
                value: path.display().to_string(),
                expected: "a path in UTF-8, as config.toml is\nhint: rename it, or name a \
                           link to it"
                    .to_owned(),
            }),
        }
    }

    /// Every path with its key.
    fn paths_mut(&mut self) -> Vec<(&'static str, &mut PathBuf)> {
        let data = &mut self.data;
        let init_from = self.model.init_from.iter_mut().map(|path| ("model.init_from", path));
        let corpora = data.corpora.iter_mut().map(|corpus| ("data.corpora", &mut corpus.path));
        init_from
            .chain(data.paths.iter_mut().map(|path| ("data.paths", path)))
            .chain(corpora)
            .chain(data.valid_paths.iter_mut().map(|path| ("data.valid_paths", path)))
            .chain(data.valid_corpora.iter_mut().map(|path| ("data.valid_corpora", path)))
            .chain(data.tokenizer.iter_mut().map(|path| ("data.tokenizer", path)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::WeightedCorpus;

    fn every_path(path: &Path) -> TrainConfig {
        let mut config = TrainConfig::default();
        let data = &mut config.data;
        data.paths = vec![path.to_owned()];
        data.valid_paths = vec![path.to_owned()];
        data.valid_corpora = vec![path.to_owned()];
        data.corpora = vec![WeightedCorpus { path: path.to_owned(), weight: 1.0 }];
        data.tokenizer = Some(path.to_owned());
        config.model.init_from = Some(path.to_owned());
        config
    }

    #[test]
    fn no_path_is_forgotten() {
        let mut config = every_path(Path::new("x"));
        let mut found: Vec<_> = config.paths_mut().into_iter().map(|(key, _)| key).collect();
        let mut expected: Vec<_> = TrainConfig::keys()
            .into_iter()
            .filter(|key| key.expected.as_ref().is_some_and(|expected| expected.contains("a path")))
            .map(|key| key.name)
            .collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn relative_paths_start_from_a_directory_that_has_them() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("text"), "x").unwrap();
        let moved = every_path(Path::new("text")).in_directory(directory.path());
        assert_eq!(moved, every_path(&directory.path().join("text")));
        for unchanged in [Path::new("absent"), Path::new("bytes"), directory.path()] {
            let config = every_path(unchanged);
            assert_eq!(config.in_directory(directory.path()), config);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_toml_cannot_hold_is_refused() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        every_path(Path::new("bücher")).check_paths().unwrap();
        let mut config = TrainConfig::default();
        config.data.valid_paths = vec![PathBuf::from(OsStr::from_bytes(b"b\xfccher"))];
        let message = config.check_paths().unwrap_err().to_string();
        assert!(message.starts_with("`data.valid_paths` is b\u{fffd}cher, expected"), "{message}");
    }
}
