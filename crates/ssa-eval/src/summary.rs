//! The machine-readable summary of a training run.

use std::path::Path;

use serde::{Deserialize, Serialize};
use ssa_files::{FileError, Operation};
use ssa_model::{Method, SparseBudget};

use crate::{Analysis, EvalError, Perplexity, Result};

/// `summary.json` of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of the program.
    pub version: String,
    /// Git commit of the build, or `unknown`.
    pub commit: String,
    /// `run.name` of the configuration.
    pub run: String,
    /// The command line that finished the run.
    pub command: String,
    /// When the run started, in UTC (RFC 3339).
    pub started: String,
    /// The machine.
    pub machine: Machine,
    /// The device, with the name of a GPU.
    pub device: String,
    /// Seed of the run.
    pub seed: u64,
    /// The names of the training corpora.
    pub data: Vec<String>,
    /// The names of the held-out data.
    pub held_out: Vec<String>,
    /// The attention method.
    pub method: Method,
    /// The sparse attention budget in training; `None` for methods without one.
    pub trained_budget: Option<SparseBudget>,
    /// Parameters of the model, tied ones counted once.
    pub parameters: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens read in training.
    pub train_tokens: u64,
    /// Wall-clock seconds of training, without evaluation.
    pub train_seconds: f64,
    /// `train_tokens / train_seconds`.
    pub tokens_per_second: f64,
    /// Bits per byte of the held-out text for a byte unigram model of the training text; `None` if
    /// the run was not evaluated.
    pub baseline_bits_per_byte: Option<f64>,
    /// Results on the held-out text; `None` if the run was not evaluated.
    pub evaluation: Option<Perplexity>,
    /// Full and sparse attention layer by layer, at the training budget if there is one; `None` if
    /// the run was not evaluated.
    pub analysis: Option<Analysis>,
    /// The resolved configuration, as in `config.toml`.
    pub config: serde_json::Value,
}

/// The machine of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: String,
    /// Number of compute threads.
    pub threads: usize,
}

impl Machine {
    /// This machine, with `threads` compute threads.
    pub fn current(threads: usize) -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").ok().as_deref().and_then(cpu_name);
        Self {
            cpu: cpu.unwrap_or_else(|| format!("{} processor", std::env::consts::ARCH)),
            threads,
        }
    }
}

impl Summary {
    /// Reads a summary.
    ///
    /// # Errors
    /// [`EvalError::File`] if the file cannot be read,
    /// [`EvalError::Summary`] if it is not a summary.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = ssa_files::read(path).map_err(FileError::at(Operation::Read, path))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| EvalError::Summary { path: path.to_owned(), cause: error.to_string() })
    }

    /// Writes the summary atomically as indented JSON.
    ///
    /// # Errors
    /// [`EvalError::File`] if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(ssa_files::write_json(path, self)?)
    }
}

/// The processor name in Linux's `/proc/cpuinfo`; other systems have no such file.
fn cpu_name(cpuinfo: &str) -> Option<String> {
    let (_, name) = cpuinfo.lines().find(|line| line.starts_with("model name"))?.split_once(':')?;
    Some(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_has_a_name() {
        let text = "processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\nmodel name\t: other\n";
        assert_eq!(cpu_name(text).as_deref(), Some("Fast CPU @ 3 GHz"));
        assert_eq!(cpu_name("processor : 0"), None);
        assert!(!Machine::current(2).cpu.is_empty());
    }
}
