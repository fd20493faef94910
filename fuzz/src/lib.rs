//! Targets of cargo-fuzz: any bytes as one file of a model's directory, read as the program reads
//! it. They are read or refused; a target fails by a panic, an abort, time or memory.
//!
//! `tests/corpus.rs` replays the corpus without the fuzzer. `README.md` tells how to fuzz.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fmt::Display;
use std::fs;
use std::path::Path;

use ssa_model::checkpoint::{self, TensorFile};
use ssa_model::{ModelConfig, parameter_shapes};
use ssa_text::{Conversation, Tokenizer};
use tempfile::TempDir;

/// A reader and the file that the fuzzer writes for it.
#[derive(Debug)]
pub struct Target {
    /// The name of the binary, and of the folder in `corpus/`.
    pub name: &'static str,
    /// The file that the bytes become.
    file: &'static str,
    /// Names and contents of the files beside it.
    beside: &'static [(&'static str, &'static [u8])],
    /// Reads the directory.
    read: fn(&Path) -> Result<(), String>,
}

/// The configuration of a model.
pub const CONFIG: Target =
    Target { name: "config", file: "config.json", beside: &[], read: read_config };

/// The index of a model in several files, and with it the loading of the model.
pub const INDEX: Target = Target {
    name: "index",
    file: "model.safetensors.index.json",
    beside: &[
        ("config.json", include_bytes!("../../tests/cases/shared/model/config.json")),
        ("one.safetensors", WEIGHTS),
        ("two.safetensors", WEIGHTS),
    ],
    read: |at| checkpoint::load(at).map(drop).map_err(text),
};

/// A file of tensors.
pub const SAFETENSORS: Target =
    Target { name: "safetensors", file: "model.safetensors", beside: &[], read: read_tensors };

/// The special tokens, added tokens and chat template of a tokenizer.
pub const TOKENIZER_CONFIG: Target = Target {
    name: "tokenizer_config",
    file: "tokenizer_config.json",
    beside: &[("tokenizer.json", TOKENIZER)],
    read: read_tokenizer,
};

/// A chat template, rendered.
pub const CHAT_TEMPLATE: Target = Target {
    name: "chat_template",
    file: "chat_template.jinja",
    beside: &[("tokenizer.json", TOKENIZER)],
    read: read_tokenizer,
};

/// All targets.
pub const ALL: [&Target; 5] = [&CONFIG, &INDEX, &SAFETENSORS, &TOKENIZER_CONFIG, &CHAT_TEMPLATE];

const WEIGHTS: &[u8] = include_bytes!("../../tests/cases/shared/model/model.safetensors");
/// Small, so that most of the time goes to the file beside it.
const TOKENIZER: &[u8] = br#"{"version": "1.0", "added_tokens": [],
    "model": {"type": "WordLevel", "vocab": {"</s>": 0, "hi": 1}, "unk_token": "</s>"}}"#;
const MESSAGES: &[u8] = br#"[{"role": "system", "content": "short"},
    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    {"role": "assistant", "content": "yes", "tool_calls": [{"type": "function",
        "function": {"name": "get", "arguments": {"x": [1, 2.5, null]}}}]}]"#;

/// A directory in which the file of a target is replaced again and again.
#[derive(Debug)]
pub struct Place {
    target: &'static Target,
    directory: TempDir,
}

impl Place {
    /// A directory with the files beside that of the target.
    pub fn new(target: &'static Target) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in target.beside {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        Self { target, directory }
    }

    /// Reads the bytes as the file of the target. A panic is a finding.
    ///
    /// # Errors
    /// Why the bytes are refused.
    pub fn read(&self, bytes: &[u8]) -> Result<(), String> {
        let at = self.directory.path();
        fs::write(at.join(self.target.file), bytes).unwrap();
        (self.target.read)(at)
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// A configuration that is read can be written and is then the same; it has countable weights.
fn read_config(at: &Path) -> Result<(), String> {
    let config = ModelConfig::read(&at.join("config.json")).map_err(text)?;
    let written = config.to_json();
    let again = ModelConfig::from_json("written", written.as_object().unwrap());
    assert!(again.as_ref().ok() == Some(&config), "{again:?} instead of {config:?}");
    parameter_shapes(&config);
    Ok(())
}

/// A tensor that is read has as many values as its shape says.
fn read_tensors(at: &Path) -> Result<(), String> {
    let file = TensorFile::open(&at.join("model.safetensors")).map_err(text)?;
    for name in file.names() {
        let tensor = file.read(&name).map_err(text)?;
        file.check(&name, tensor.shape()).map_err(text)?;
        let values = tensor.as_slice().map_err(text)?.len();
        assert_eq!(values, tensor.shape().iter().product::<usize>(), "{name}");
    }
    Ok(())
}

fn read_tokenizer(at: &Path) -> Result<(), String> {
    let tokenizer = Tokenizer::load(at, None).map_err(text)?;
    let ids = tokenizer.encode(b"hi <x> hi").map_err(text)?;
    tokenizer.decode(&ids).map_err(text)?;
    let conversation = Conversation::from_json(MESSAGES).map_err(text)?;
    let rendered = tokenizer.render(&conversation).map_err(text);
    let prompt = tokenizer.render_prompt(&conversation).map_err(text);
    rendered.and(prompt).map(drop)
}
