//! What a checkpoint recommends for generation: `generation_config.json`.

use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;

use crate::{InferError, Result, SamplingOptions};

/// The file, next to `config.json`.
const FILE: &str = "generation_config.json";

/// What a checkpoint recommends for generation.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationDefaults {
    /// Sampling; greedy unless the file has `do_sample`. What it does not set is off.
    pub sampling: SamplingOptions,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
}

/// The keys that are used; all others are ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    do_sample: Option<bool>,
    temperature: Option<f64>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    eos_token_id: Option<OneOrMore>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(u32),
    More(Vec<u32>),
}

impl GenerationDefaults {
    /// Reads the file of a checkpoint directory. Without the file, or where it does not say,
    /// sampling is greedy and `eos_token_ids`, those of `config.json`, end a text.
    ///
    /// # Errors
    /// [`InferError::GenerationConfig`] if the file cannot be read, is not JSON, or has a value
    /// outside its range.
    pub fn read(directory: &Path, eos_token_ids: &[u32]) -> Result<Self> {
        let path = directory.join(FILE);
        let wrong = |cause: String| InferError::GenerationConfig { path: path.clone(), cause };
        let file: File = match ssa_files::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => File::default(),
            Err(error) => return Err(wrong(format!("cannot be read: {error}"))),
        };
        let off = SamplingOptions::GREEDY;
        let repetition_penalty = file.repetition_penalty.unwrap_or(off.repetition_penalty);
        let sampling = if file.do_sample == Some(true) {
            SamplingOptions {
                temperature: file.temperature.unwrap_or(1.0),
                top_k: file.top_k.unwrap_or(off.top_k),
                top_p: file.top_p.unwrap_or(off.top_p),
                min_p: file.min_p.unwrap_or(off.min_p),
                repetition_penalty,
            }
        } else {
            SamplingOptions { repetition_penalty, ..off }
        };
        sampling.check().map_err(|error| wrong(error.to_string()))?;
        let eos_token_ids = match file.eos_token_id {
            None => eos_token_ids.to_vec(),
            Some(OneOrMore::One(id)) => vec![id],
            Some(OneOrMore::More(ids)) => ids,
        };
        Ok(Self { sampling, eos_token_ids })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(text: &str) -> Result<GenerationDefaults> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), text).unwrap();
        GenerationDefaults::read(directory.path(), &[7])
    }

    #[test]
    fn values_count_if_the_file_samples() {
        let missing = GenerationDefaults::read(Path::new("/nonexistent"), &[7]).unwrap();
        assert_eq!(missing, read("{}").unwrap());
        assert_eq!(missing.sampling, SamplingOptions::GREEDY);
        assert_eq!(missing.eos_token_ids, [7]);
        let sampled = read(
            r#"{"do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": null,
                "eos_token_id": [1, 2], "pad_token_id": 3, "max_length": 9}"#,
        )
        .unwrap();
        let expected = SamplingOptions { temperature: 0.6, top_p: 0.9, ..SamplingOptions::GREEDY };
        assert_eq!((sampled.sampling, sampled.eos_token_ids), (expected, vec![1, 2]));
        let greedy =
            read(r#"{"temperature": 0.6, "repetition_penalty": 1.1, "eos_token_id": 4}"#).unwrap();
        let expected = SamplingOptions { repetition_penalty: 1.1, ..SamplingOptions::GREEDY };
        assert_eq!((greedy.sampling, greedy.eos_token_ids), (expected, vec![4]));
    }

    #[test]
    fn faults_name_the_file() {
        for (text, cause) in [
            ("{", "generation_config.json: EOF"),
            ("[1]", "generation_config.json: "),
            (r#"{"do_sample": true, "top_p": 1.5}"#, "generation_config.json: top_p is 1.5, expec"),
            (r#"{"do_sample": true, "temperature": -1}"#, "temperature is -1, expected a number"),
            (r#"{"eos_token_id": "x"}"#, "generation_config.json: "),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
        }
    }
}
