//! Reading as the program does, through the public functions of its crates.

use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use ssa_data::{
    Conversation, Corpus, InputOptions, Loader, Manifest, PackOptions, Packing, Part,
    PrepareOptions, Remainder, TokenSource, Tokenizer, corpus_tokenizer, count_tokens,
    decode_snapshot, documents, find_sources, pack_documents, prepare, verify,
};
use ssa_files::Sha256;
use ssa_model::checkpoint::{self, TensorFile};
use ssa_model::{ModelConfig, SparseBudget};
use ssa_train::{Checkpoint, LoggedStep, RunDir, TrainConfig, TrainPlan, verify_model};

/// The largest document that is read here.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 1 << 24;

fn text(error: impl Display) -> String {
    error.to_string()
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

/// Lines that are read of a file with one input in each.
const LINES: usize = 64;

/// Reads every line, and returns the first error.
fn lines(path: &Path, read: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    let text = String::from_utf8_lossy(&bytes(path)).into_owned();
    text.lines().take(LINES).map(read).fold(Ok(()), Result::and)
}

pub(crate) fn config(at: &Path, file: &str) -> Result<(), String> {
    plan(&at.join(file), &[])
}

pub(crate) fn overrides(at: &Path, file: &str) -> Result<(), String> {
    let text = String::from_utf8_lossy(&bytes(&at.join(file))).into_owned();
    plan(&at.join("tiny.toml"), &text.lines().map(str::to_owned).collect::<Vec<_>>())
}

fn plan(path: &Path, overrides: &[String]) -> Result<(), String> {
    let config = TrainConfig::load(path, overrides).map_err(text)?;
    let written = TrainConfig::parse(&config.to_toml(), "written", &[]).map_err(text)?;
    assert!(written == config, "a configuration that is written reads differently");
    TrainPlan::new(config).map(drop).map_err(text)
}

pub(crate) fn budgets(at: &Path, file: &str) -> Result<(), String> {
    lines(&at.join(file), |line| line.parse::<SparseBudget>().map(drop).map_err(text))
}

pub(crate) fn model_config(at: &Path, file: &str) -> Result<(), String> {
    ModelConfig::read(&at.join(file)).map(|config| drop(config.to_json())).map_err(text)
}

pub(crate) fn model(at: &Path, _file: &str) -> Result<(), String> {
    checkpoint::load(at).map(drop).map_err(text)
}

pub(crate) fn tensors(at: &Path, file: &str) -> Result<(), String> {
    let file = TensorFile::open(&at.join(file)).map_err(text)?;
    file.names().iter().try_for_each(|name| file.read(name).map(drop)).map_err(text)
}

pub(crate) fn tokenizer(at: &Path, _file: &str) -> Result<(), String> {
    let tokenizer = Tokenizer::load(at, None).map_err(text)?;
    let sample = "some text, naïve \u{fb01}\n\n<|im_end|> 123  ".repeat(20);
    let ids = tokenizer.encode(sample.as_bytes()).map_err(text)?;
    tokenizer.decode(&ids).map_err(text)?;
    render(at, &tokenizer)
}

pub(crate) fn template(at: &Path, file: &str) -> Result<(), String> {
    let place = at.join("tokenizer");
    fs::copy(at.join(file), place.join("chat_template.jinja")).unwrap();
    render(&place, &Tokenizer::load(&place, None).map_err(text)?)
}

fn render(at: &Path, tokenizer: &Tokenizer) -> Result<(), String> {
    let messages =
        json!([{ "role": "user", "content": "hi" }, { "role": "assistant", "content": "yes" }]);
    let conversation = Conversation::from_json(messages.to_string().as_bytes()).map_err(text)?;
    if matches!(tokenizer, Tokenizer::Hf(_)) {
        let rendered = tokenizer.render(&conversation).map(drop).map_err(text);
        let names_its_file =
            |error: &String| error.contains(at.to_str().unwrap()) || error.contains("chat model");
        assert!(rendered.as_ref().err().is_none_or(names_its_file), "{rendered:?}");
        return rendered;
    }
    Ok(())
}

fn input() -> InputOptions {
    InputOptions { max_document_bytes: MAX_DOCUMENT_BYTES, ..InputOptions::default() }
}

fn read_documents(path: &Path, options: &InputOptions, with: &Tokenizer) -> Result<(), String> {
    let sources = find_sources(&[path.to_owned()], options).map_err(text)?;
    documents(&sources, options, with).try_for_each(|document| document.map(drop)).map_err(text)
}

pub(crate) fn texts(at: &Path, file: &str) -> Result<(), String> {
    read_documents(&at.join(file), &input(), &Tokenizer::Bytes)
}

pub(crate) fn conversations(at: &Path, file: &str) -> Result<(), String> {
    let tokenizer = Tokenizer::load(&at.join("tokenizer"), None).map_err(text)?;
    let options = InputOptions { conversations_field: Some("messages".into()), ..input() };
    read_documents(&at.join(file), &options, &tokenizer)
}

/// Patterns below the directory, and addresses of the Hub, which is asked for nothing.
pub(crate) fn patterns(at: &Path, file: &str) -> Result<(), String> {
    lines(&at.join(file), |line| {
        let is_local = !line.starts_with("hf:");
        let input_of =
            if is_local { at.join(line.trim_start_matches(['/', '.'])) } else { line.into() };
        find_sources(&[input_of], &input()).map(drop).map_err(text)
    })
}

/// A snapshot, or its lines, which are compressed first: damage to them is found by no checksum.
pub(crate) fn snapshot(at: &Path, file: &str) -> Result<(), String> {
    let mut bytes = bytes(&at.join(file));
    if file.ends_with(".jsonl") {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        bytes = gzip.finish().unwrap();
    }
    decode_snapshot(&bytes).map(drop).map_err(text)
}

pub(crate) fn corpus(at: &Path, _file: &str) -> Result<(), String> {
    corpus_tokenizer(at).map_err(text)?;
    let corpus = Corpus::open(at).map_err(text)?;
    let manifest = Manifest::read(at).map_err(text)?;
    manifest.map_or(Ok(()), |manifest| verify(&corpus, &manifest)).map_err(text)
}

pub(crate) fn shards(at: &Path, _file: &str) -> Result<(), String> {
    let corpus = Corpus::open(at).map_err(text)?;
    count_tokens(&corpus, 5, &mut |_, _| ()).map_err(text)?;
    let source = Arc::new(TokenSource::shards(corpus, 300, 0));
    let split = source.split(0.3, 1).map_err(text)?;
    source.text_bytes(&split.held_out);
    for &packing in Packing::ALL {
        let remainder = Remainder::Pad;
        let options = PackOptions { sequence_length: 32, packing, seed: 0, remainder };
        let rows = pack_documents(Arc::clone(&source), &split.train, &options).map_err(text)?;
        let loader = Loader::new(rows, 2, 0).map_err(text)?;
        (0..3).try_for_each(|batch| loader.batch(batch).map(drop)).map_err(text)?;
    }
    Ok(())
}

/// Goes on with a preparation whose next file has been corrected.
pub(crate) fn preparation(at: &Path, _file: &str) -> Result<(), String> {
    let tokenizer = Tokenizer::load(&at.join("tokenizer"), None).map_err(text)?;
    fs::write(at.join("bad.txt"), "cafe").unwrap();
    let options = PrepareOptions {
        input: input(),
        output: at.join("o"),
        shard_tokens: 400,
        part: Part::WHOLE,
        threads: 1,
    };
    let inputs = [at.join("docs.jsonl"), at.join("bad.txt")];
    prepare(&inputs, &tokenizer, &options, &mut |_| ()).map(drop).map_err(text)
}

/// Writes the checksum of a changed state, if it still is one, and the names that its sources have
/// in this directory.
pub(crate) fn reseal_preparation(at: &Path) {
    let path = at.join("o/preparation.json");
    let Ok(mut state) = serde_json::from_slice::<Value>(&bytes(&path)) else { return };
    if !state.is_object() {
        return;
    }
    for (number, name) in ["docs.jsonl", "bad.txt"].iter().enumerate() {
        if let Some(source) = state.pointer_mut(&format!("/manifest/sources/{number}/name")) {
            *source = at.join(name).to_str().unwrap().into();
        }
    }
    let parts = [&state["resume_at"], &state["read"], &state["manifest"]];
    state["sha256"] = Sha256::of(serde_json::to_vec(&parts).unwrap()).to_string().into();
    fs::write(path, state.to_string()).unwrap();
}

pub(crate) fn checkpoint(at: &Path, _file: &str) -> Result<(), String> {
    verify_model(at).map_err(text)?;
    ModelConfig::read(&at.join("config.json")).map_err(text)?;
    Checkpoint::open(at).map(drop).map_err(text)
}

/// Writes the checksums of a changed checkpoint.
pub(crate) fn reseal_checkpoint(at: &Path) {
    let sum = |name: &str| Sha256::of(bytes(&at.join(name))).to_string();
    if let Ok(mut state) = serde_json::from_slice::<Value>(&bytes(&at.join("state.json")))
        && state.is_object()
    {
        state["config_sha256"] = sum("config.toml").into();
        fs::write(at.join("state.json"), state.to_string()).unwrap();
    }
    let names =
        ["config.json", "model.safetensors", "optimizer.safetensors", "config.toml", "state.json"];
    let sums: String = names.iter().map(|name| format!("{}  {name}\n", sum(name))).collect();
    fs::write(at.join("SHA256SUMS"), sums).unwrap();
}

pub(crate) fn run_directory(at: &Path, _file: &str) -> Result<(), String> {
    let path = at.join("r");
    let run = RunDir::open(&path).map_err(text)?;
    let config = run.config().map_err(text)?;
    run.journal().map_err(text)?;
    run.best().map_err(text)?;
    RunDir::working_directory_of(&path).map_err(text)?;
    run.resume(&config, &[]).map(drop).map_err(text)
}

pub(crate) fn metrics(at: &Path, file: &str) -> Result<(), String> {
    lines(&at.join(file), |line| {
        let step: LoggedStep = serde_json::from_str(line).map_err(text)?;
        step.measured.view::<ssa_eval::Monitored>().map(drop).map_err(text)
    })
}
