//! The answers so far of an evaluation that writes a file, so that it can be resumed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use ssa_files::JsonLines;

use super::answers::Answer;
use crate::{EvalError, Result};

/// The answers so far: a line with the settings, then a line for each document.
#[derive(Debug)]
pub struct Journal {
    lines: JsonLines,
    path: PathBuf,
    /// Answers of an earlier process.
    done: Vec<Line>,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header {
    /// Everything that decides the answers.
    settings: Value,
}

/// The answers of a document of a task with one attention.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// The task and the attention, by their number.
    part: usize,
    answers: Vec<Answer>,
}

impl Journal {
    /// Opens the journal next to `output`, or starts one. `settings` is everything that decides the
    /// answers. A journal with other settings is an error, or discarded if `discards`.
    ///
    /// # Errors
    /// [`EvalError::Task`] names a journal with other settings, or a damaged one;
    /// [`EvalError::File`] if it cannot be read or written.
    pub fn open(output: &Path, settings: Value, discards: bool) -> Result<Self> {
        let path = Self::beside(output);
        let text = ssa_files::read_lines(&path)?.text;
        let mut kept = 0;
        let mut done = Vec::new();
        let mut lines = text.split_inclusive('\n');
        if let Some(first) = lines.next() {
            let header = serde_json::from_str(first).ok();
            if header.is_some_and(|header: Header| header.settings == settings) {
                kept = first.len();
                for line in lines {
                    // What follows a damaged line is computed again.
                    let Ok(parsed) = serde_json::from_str(line) else { break };
                    done.push(parsed);
                    kept += line.len();
                }
            } else if !discards {
                return Err(EvalError::task(
                    path.display().to_string(),
                    "holds an unfinished evaluation with other settings",
                    "finish it with the same command, name another --output, or pass --overwrite",
                ));
            }
        }
        let mut lines = JsonLines::open_cut(&path, kept as u64)?;
        if kept == 0 {
            lines.append(&Header { settings })?;
        }
        Ok(Self { lines, path, done })
    }

    fn beside(output: &Path) -> PathBuf {
        let mut name = output.as_os_str().to_owned();
        name.push(".partial");
        name.into()
    }

    /// Documents with answers of an earlier process.
    pub fn resumed(&self) -> usize {
        self.done.len()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The answers of an earlier process for a part.
    pub fn take(&mut self, part: usize) -> Vec<Vec<Answer>> {
        let (own, others) =
            std::mem::take(&mut self.done).into_iter().partition(|line| line.part == part);
        self.done = others;
        own.into_iter().map(|line: Line| line.answers).collect()
    }

    /// Adds the answers of a document.
    ///
    /// # Errors
    /// [`EvalError::File`].
    pub fn add(&mut self, part: usize, answers: &[Answer]) -> Result<()> {
        Ok(self.lines.append(&Line { part, answers: answers.to_vec() })?)
    }

    /// Removes it, after its output is written.
    ///
    /// # Errors
    /// [`EvalError::File`].
    pub fn remove(self) -> Result<()> {
        Ok(ssa_files::remove_file(&self.path)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_evaluation_resumes_after_its_last_document() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("out.json");
        let settings = serde_json::json!({ "limit": 3 });
        let open = |discards| Journal::open(&output, settings.clone(), discards);
        let answers = [Answer::Continuation(-1.25e-3, true), Answer::Rolling(-0.1)];
        let text = [Answer::Text("x\n".to_owned())];
        let mut journal = open(false).unwrap();
        journal.add(0, &answers).unwrap();
        journal.add(1, &text).unwrap();
        drop(journal);
        // A killed process may leave half a line.
        let path = directory.path().join("out.json.partial");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"{\"part\": 1"].concat()).unwrap();
        let mut journal = open(false).unwrap();
        assert_eq!(journal.resumed(), 2);
        assert_eq!(journal.take(0), [answers.to_vec()]);
        assert_eq!(journal.take(1), [text.to_vec()]);
        assert!(journal.take(2).is_empty());
        journal.add(1, &text).unwrap();
        drop(journal);
        assert_eq!(open(false).unwrap().resumed(), 3);

        let other = serde_json::json!({ "limit": 4 });
        let error = Journal::open(&output, other.clone(), false).unwrap_err().to_string();
        assert!(error.contains("out.json.partial: holds an unfinished evaluation"), "{error}");
        let journal = Journal::open(&output, other, true).unwrap();
        assert_eq!(journal.resumed(), 0);
        journal.remove().unwrap();
        assert!(!path.exists());
    }
}
