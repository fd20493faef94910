//! Where the rows of a task are.

use std::path::PathBuf;
use std::str::FromStr;

use serde_json::Value;
use ssa_data::{Row, read_rows};

use super::task::Task;
use crate::{EvalError, Result};

/// Local rows of a task: `TASK=PATH`, or `TASK:SPLIT=PATH` for another split than the evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowsOf {
    /// The name of the task.
    pub task: String,
    /// The split; `None` for the one that is evaluated.
    pub split: Option<String>,
    /// A file, directory or pattern, or an address on the Hub.
    pub path: PathBuf,
}

impl FromStr for RowsOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('=').map(|(name, path)| {
            let (task, split) = match name.split_once(':') {
                None => (name, None),
                Some((task, split)) => (task, Some(split.to_owned())),
            };
            Self { task: task.to_owned(), split, path: path.into() }
        });
        let complete = parsed.filter(|rows| {
            let split = rows.split.as_ref().is_none_or(|split| !split.is_empty());
            split && !rows.task.is_empty() && !rows.path.as_os_str().is_empty()
        });
        complete.ok_or_else(|| "expected TASK=PATH or TASK:SPLIT=PATH".to_owned())
    }
}

impl Task {
    /// The rows of a split: local ones if `given` has them, else those of `dataset_kwargs` or of
    /// the dataset on the Hub.
    ///
    /// # Errors
    /// [`EvalError::Task`] if the file names no rows, or if there are none; [`EvalError::Data`] if
    /// they cannot be read.
    pub(super) fn rows(&self, split: &str, given: &[RowsOf]) -> Result<Vec<Row>> {
        let evaluated = self.evaluated_split()?;
        let own = given.iter().filter(|rows| {
            rows.task == self.file.task && rows.split.as_deref().unwrap_or(evaluated) == split
        });
        let mut paths: Vec<PathBuf> = own.map(|rows| rows.path.clone()).collect();
        if paths.is_empty() {
            paths = self.files_of(split)?;
        }
        let rows = read_rows(&paths)?;
        match rows.is_empty() {
            true => Err(EvalError::task(
                paths[0].display().to_string(),
                "there are no rows",
                format!("pass --data {}:{split}=PATH for other rows", self.file.task),
            )),
            false => Ok(rows),
        }
    }

    pub(super) fn files_of(&self, split: &str) -> Result<Vec<PathBuf>> {
        let arguments = self.file.dataset_kwargs.as_ref();
        let files = arguments.and_then(|arguments| arguments.data_files.as_ref());
        let none = || {
            let name = &self.file.task;
            self.wrong(
                format!("no rows of the split `{split}`"),
                format!("set dataset_path, or pass --data {name}:{split}=PATH"),
            )
        };
        if let Some(files) = files {
            let of_split = match files {
                Value::Object(splits) => splits.get(split).ok_or_else(none)?,
                files => files,
            };
            return match of_split {
                Value::String(path) => Ok(vec![path.into()]),
                Value::Array(paths) => {
                    let paths = paths.iter().map(|path| path.as_str().map(PathBuf::from));
                    paths.collect::<Option<Vec<_>>>().filter(|paths| !paths.is_empty())
                }
                .ok_or_else(none),
                _ => Err(none()),
            };
        }
        let dataset = self.file.dataset_path.as_deref().filter(|path| path.contains('/'));
        let dataset = dataset.ok_or_else(none)?;
        // Every dataset has its rows as Parquet there, by configuration and split.
        let name = self.file.dataset_name.as_deref().unwrap_or("*");
        Ok(vec![
            format!("hf://datasets/{dataset}@refs/convert/parquet/{name}/{split}/*.parquet").into(),
        ])
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn local_rows_are_named_by_task_and_split() {
        let rows: RowsOf = "piqa:train=a=b.jsonl".parse().unwrap();
        assert_eq!((rows.task.as_str(), rows.split.as_deref()), ("piqa", Some("train")));
        assert_eq!(rows.path, Path::new("a=b.jsonl"));
        for text in ["piqa", "=x", "piqa=", "piqa:=x"] {
            assert!(text.parse::<RowsOf>().unwrap_err().contains("TASK=PATH"), "{text}");
        }
    }
}
