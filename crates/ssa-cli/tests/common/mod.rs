//! Helpers that run the program like a user.

// Each test file uses only some of these helpers.
#![allow(dead_code)]

pub(crate) mod process;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ssa_testkit::golden_dir;
use tempfile::TempDir;

/// The exit code and output of a run of the program.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Fails unless the program ended with 0.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "stderr:\n{}", self.stderr);
        self
    }

    /// Fails unless the program ended with `code` and an error that has all of `parts`.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, code, "stderr:\n{}", self.stderr);
        assert!(self.stderr.contains("error: "), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not in:\n{}", self.stderr);
        }
        self
    }
}

/// A command that runs the program in a directory.
pub(crate) fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssa"));
    command
        .current_dir(directory)
        .stdin(Stdio::null())
        .env("COLUMNS", "100")
        .env_remove("RUST_BACKTRACE");
    // Give the same results on machines with a GPU.
    command.env("CUDA_VISIBLE_DEVICES", "");
    command
}

/// Runs the program in a directory.
pub(crate) fn ssa<I: AsRef<OsStr>>(
    directory: &Path,
    arguments: impl IntoIterator<Item = I>,
) -> Run {
    let output = command(directory).args(arguments).output().unwrap();
    Run {
        code: output.status.code().expect("the program ends by itself"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A fresh directory with a corpus `text/` and a configuration `tiny.toml` that trains in about a
/// second.
pub(crate) fn workplace() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("text")).unwrap();
    for number in 0..12 {
        let text =
            format!("{number}: the quick brown fox jumps over the lazy dog. ").repeat(8 + number);
        fs::write(directory.path().join(format!("text/{number:02}.txt")), text).unwrap();
    }
    fs::write(directory.path().join("tiny.toml"), TINY).unwrap();
    directory
}

const TINY: &str = r#"
[run]
name = "tiny"

[model]
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 8
block_size = 8
block_counts = 2

[data]
paths = ["text"]
held_out_fraction = 0.2
sequence_length = 64

[training]
steps = 6
batch_size = 2
log_every = 2

[optimizer]
learning_rate = 3e-3
warmup_steps = 2

[evaluation]
budgets = ["8x1", "8x2", "8x8"]
batch_size = 2
analysis_tokens = 128
"#;

/// A golden case: checkpoint, inputs and outputs of the released code.
pub(crate) fn golden_case(name: &str) -> PathBuf {
    let case = golden_dir().join("model").join(name);
    fs::canonicalize(&case).unwrap_or_else(|error| panic!("{}: {error}", case.display()))
}

/// Copies a checkpoint, to be modified.
pub(crate) fn copy_checkpoint(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
}
