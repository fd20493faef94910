//! Every reader of files, as a function of a directory.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use ssa_data::{
    Corpus, InputOptions, Loader, Manifest, PackOptions, Packing, Part, PrepareOptions, Remainder,
    TokenSource, Tokenizer, corpus_tokenizer, count_tokens, decode_snapshot, documents,
    find_sources, pack_documents, prepare, verify,
};
use ssa_files::Sha256;
use ssa_model::checkpoint::{self, TensorFile};
use ssa_model::{ModelConfig, SparseBudget};
use ssa_train::{Checkpoint, LoggedStep, RunDir, TrainConfig, TrainPlan, verify_model};

/// A reader and what is damaged for it.
pub(crate) struct Reader {
    pub(crate) name: &'static str,
    /// Folder of the healthy inputs.
    pub(crate) files: &'static str,
    /// Files in it, of which one is damaged.
    pub(crate) damaged: &'static [&'static str],
    /// Makes the checksums of every second input right again.
    pub(crate) reseal: fn(&Path),
    /// Files that this changes.
    pub(crate) sealed: &'static [&'static str],
    /// Memory that an input may take.
    pub(crate) mebibytes: u64,
    /// Whether it changes its directory.
    pub(crate) writes: bool,
    pub(crate) read: fn(&Path) -> Result<(), String>,
}

const READER: Reader = Reader {
    name: "",
    files: "",
    damaged: &[],
    reseal: |_| (),
    sealed: &[],
    mebibytes: 64,
    writes: false,
    read: |_| Ok(()),
};

/// What a tokenizer takes for ids up to 2^24, which are allowed.
const TOKENIZER_MEBIBYTES: u64 = 1200;
/// What a chat template may make and keep before its fuel is spent.
const TEMPLATE_MEBIBYTES: u64 = 600;
/// The largest document that readers of text allow here.
const MAX_DOCUMENT_BYTES: u64 = 1 << 24;

pub(crate) fn all() -> Vec<Reader> {
    vec![
        Reader {
            name: "config",
            files: "config",
            damaged: &["tiny.toml", "demo.toml"],
            read: |at| {
                ["tiny.toml", "demo.toml"].iter().try_for_each(|name| plan(&at.join(name), &[]))
            },
            ..READER
        },
        Reader {
            name: "overrides",
            files: "config",
            damaged: &["overrides"],
            read: |at| {
                lines(&at.join("overrides"), |line| plan(&at.join("tiny.toml"), &[line.to_owned()]))
            },
            ..READER
        },
        Reader {
            name: "budgets",
            files: "config",
            damaged: &["overrides"],
            read: |at| {
                let budgets = |line: &str| {
                    let list = line.split('=').next_back().unwrap().split(',');
                    list.map(str::parse::<SparseBudget>).try_for_each(|budget| budget.map(drop))
                };
                lines(&at.join("overrides"), |line| budgets(line).map_err(text))
            },
            ..READER
        },
        Reader {
            name: "model-config",
            files: "model",
            damaged: &["config.json"],
            read: |at| {
                let config = ModelConfig::read(&at.join("config.json")).map_err(text)?;
                config.to_json();
                Ok(())
            },
            ..READER
        },
        Reader {
            name: "model",
            files: "model",
            damaged: &["config.json", "model.safetensors"],
            read: |at| checkpoint::load(at).map(drop).map_err(text),
            ..READER
        },
        Reader {
            name: "sharded-model",
            files: "sharded",
            damaged: &["model.safetensors.index.json", "one.safetensors", "config.json"],
            read: |at| checkpoint::load(at).map(drop).map_err(text),
            ..READER
        },
        Reader {
            name: "tensors",
            files: "forward",
            damaged: &["in.safetensors", "model/model.safetensors"],
            read: |at| {
                for name in ["in.safetensors", "model/model.safetensors"] {
                    let file = TensorFile::open(&at.join(name)).map_err(text)?;
                    file.names()
                        .iter()
                        .try_for_each(|name| file.read(name).map(drop))
                        .map_err(text)?;
                }
                Ok(())
            },
            ..READER
        },
        Reader {
            name: "tokenizer",
            files: "tokenizer",
            damaged: &["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"],
            mebibytes: TOKENIZER_MEBIBYTES,
            read: tokenize,
            ..READER
        },
        Reader {
            name: "normalizing-tokenizer",
            files: "nfkc",
            damaged: &["tokenizer.json"],
            mebibytes: TOKENIZER_MEBIBYTES,
            read: tokenize,
            ..READER
        },
        Reader {
            name: "chat-templates",
            files: "templates",
            damaged: TEMPLATES,
            mebibytes: TEMPLATE_MEBIBYTES,
            writes: true,
            read: render_templates,
            ..READER
        },
        Reader {
            name: "conversations",
            files: "chat",
            damaged: &["c.jsonl", "c.parquet"],
            mebibytes: TEMPLATE_MEBIBYTES,
            read: |at| {
                let tokenizer = Tokenizer::load(&at.join("tokenizer"), None).map_err(text)?;
                let options =
                    InputOptions { conversations_field: Some("messages".into()), ..input() };
                ["c.jsonl", "c.parquet"].iter().try_for_each(|name| {
                    read_documents(&at.join(name), &options, &Tokenizer::Bytes)?;
                    read_documents(&at.join(name), &options, &tokenizer)
                })
            },
            ..READER
        },
        Reader {
            name: "texts",
            files: "texts",
            damaged: TEXTS,
            mebibytes: 256,
            read: |at| {
                // Each by itself: the first error ends the reading.
                let read = |name| read_documents(&at.join(name), &input(), &Tokenizer::Bytes);
                TEXTS.iter().map(read).fold(Ok(()), Result::and)
            },
            ..READER
        },
        Reader {
            name: "patterns",
            files: "texts",
            damaged: &["patterns"],
            read: |at| {
                lines(&at.join("patterns"), |line| {
                    // Of the machine that runs the test, nothing is read.
                    let relative = line.trim_start_matches(['/', '.']);
                    let inputs = [PathBuf::from(relative), at.join(relative)];
                    find_sources(&inputs[..1], &input()).map_err(text)?;
                    find_sources(&inputs[1..], &input()).map(drop).map_err(text)
                })
            },
            ..READER
        },
        Reader {
            name: "snapshot",
            files: "snapshot",
            damaged: &["snapshot.gz"],
            mebibytes: 256,
            read: |at| decode_snapshot(&bytes(&at.join("snapshot.gz"))).map(drop).map_err(text),
            ..READER
        },
        Reader {
            name: "corpus",
            files: "corpus",
            damaged: &[
                "manifest.json",
                "00000.bin",
                "00000.idx",
                "00000.bytes",
                "00001.idx",
                "tokenizer.json",
            ],
            mebibytes: TOKENIZER_MEBIBYTES,
            read: |at| read_corpus(at, true),
            ..READER
        },
        Reader {
            name: "shards",
            files: "corpus",
            damaged: &["00000.bin", "00000.idx", "00000.bytes", "00001.idx", "00002.bin"],
            read: |at| read_corpus(at, false),
            ..READER
        },
        Reader {
            name: "preparation",
            files: "preparation",
            damaged: &["o/preparation.json", "o/00000.idx", "o/00000.bytes", "docs.jsonl"],
            reseal: reseal_preparation,
            writes: true,
            read: continue_preparation,
            ..READER
        },
        Reader {
            name: "checkpoint",
            files: "run",
            damaged: &[
                "r/checkpoints/step-4/state.json",
                "r/checkpoints/step-4/config.toml",
                "r/checkpoints/step-4/config.json",
                "r/checkpoints/step-4/SHA256SUMS",
            ],
            reseal: |at| reseal_checkpoint(&at.join("r/checkpoints/step-4")),
            sealed: &["r/checkpoints/step-4/state.json", "r/checkpoints/step-4/SHA256SUMS"],
            read: |at| {
                let step = at.join("r/checkpoints/step-4");
                verify_model(&step).map_err(text)?;
                ModelConfig::read(&step.join("config.json")).map_err(text)?;
                Checkpoint::open(&step).map(drop).map_err(text)
            },
            ..READER
        },
        Reader {
            name: "run-directory",
            files: "run",
            damaged: &["r/config.toml", "r/journal.jsonl", "r/best/best.json"],
            read: |at| {
                let run = RunDir::open(&at.join("r")).map_err(text)?;
                let config = run.config().map_err(text)?;
                run.journal().map_err(text)?;
                run.best().map_err(text)?;
                RunDir::working_directory_of(&at.join("r")).map_err(text)?;
                run.resume(&config, &[]).map(drop).map_err(text)
            },
            ..READER
        },
        Reader {
            name: "metrics",
            files: "run",
            damaged: &["r/metrics.jsonl"],
            read: |at| {
                lines(&at.join("r/metrics.jsonl"), |line| {
                    let step: LoggedStep = serde_json::from_str(line).map_err(text)?;
                    step.measured.view::<ssa_eval::Monitored>().map(drop).map_err(text)
                })
            },
            ..READER
        },
    ]
}

const TEMPLATES: &[&str] = &[
    "00.jinja", "01.jinja", "02.jinja", "03.jinja", "04.jinja", "05.jinja", "06.jinja", "07.jinja",
    "08.jinja", "09.jinja",
];

const TEXTS: &[&str] = &[
    "a.txt",
    "b.jsonl",
    "c.json",
    "d.jsonl.gz",
    "e.jsonl.zst",
    "f.jsonl.xz",
    "g.jsonl",
    "h.jsonl.bz2",
    "i.jsonl.zst",
    "j.parquet",
    "k.parquet",
];

fn text(error: impl Display) -> String {
    error.to_string()
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

fn lines(path: &Path, read: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    let text = String::from_utf8_lossy(&bytes(path)).into_owned();
    text.lines().map(read).fold(Ok(()), Result::and)
}

fn plan(path: &Path, overrides: &[String]) -> Result<(), String> {
    let config = TrainConfig::load(path, overrides).map_err(text)?;
    let written = TrainConfig::parse(&config.to_toml(), "written", &[]).map_err(text)?;
    assert!(written == config, "a configuration that is written reads differently");
    TrainPlan::new(config).map(drop).map_err(text)
}

fn input() -> InputOptions {
    InputOptions { max_document_bytes: MAX_DOCUMENT_BYTES, ..InputOptions::default() }
}

fn read_documents(path: &Path, options: &InputOptions, with: &Tokenizer) -> Result<(), String> {
    let sources = find_sources(&[path.to_owned()], options).map_err(text)?;
    documents(&sources, options, with).try_for_each(|document| document.map(drop)).map_err(text)
}

fn tokenize(at: &Path) -> Result<(), String> {
    let tokenizer = Tokenizer::load(at, None).map_err(text)?;
    let sample = "some text, naïve \u{fb01}\n\n<|im_end|> 123  ".repeat(20);
    let ids = tokenizer.encode(sample.as_bytes()).map_err(text)?;
    tokenizer.decode(&ids).map_err(text)?;
    render(at, &tokenizer)
}

fn render(at: &Path, tokenizer: &Tokenizer) -> Result<(), String> {
    let row =
        json!([{ "role": "user", "content": "hi" }, { "role": "assistant", "content": "yes" }]);
    let conversation = ssa_data::Conversation::from_json(row.to_string().as_bytes());
    let rendered = conversation.and_then(|conversation| tokenizer.render(&conversation));
    rendered.map(drop).map_err(|error| {
        let error = error.to_string();
        assert!(error.contains(at.to_str().unwrap()), "no file is named: {error}");
        error
    })
}

fn render_templates(at: &Path) -> Result<(), String> {
    let place = at.join("tokenizer");
    let render_one = |name: &&str| {
        fs::copy(at.join(name), place.join("chat_template.jinja")).unwrap();
        render(&place, &Tokenizer::load(&place, None).map_err(text)?)
    };
    TEMPLATES.iter().map(render_one).fold(Ok(()), Result::and)
}

fn read_corpus(at: &Path, with_manifest: bool) -> Result<(), String> {
    let corpus = Corpus::open(at).map_err(text)?;
    count_tokens(&corpus, 5, &mut |_, _| ()).map_err(text)?;
    if with_manifest {
        corpus_tokenizer(at).map_err(text)?;
        let manifest = Manifest::read(at).map_err(text)?;
        manifest.map_or(Ok(()), |manifest| verify(&corpus, &manifest)).map_err(text)?;
    }
    let source = Arc::new(TokenSource::shards(corpus, 300, 0));
    let split = source.split(0.3, 1).map_err(text)?;
    source.text_bytes(&split.held_out);
    for &packing in Packing::ALL {
        let options =
            PackOptions { sequence_length: 32, packing, seed: 0, remainder: Remainder::Pad };
        let rows = pack_documents(Arc::clone(&source), &split.train, &options).map_err(text)?;
        let loader = Loader::new(rows, 2, 0).map_err(text)?;
        (0..3).try_for_each(|batch| loader.batch(batch).map(drop)).map_err(text)?;
    }
    Ok(())
}

fn continue_preparation(at: &Path) -> Result<(), String> {
    let tokenizer = Tokenizer::load(&at.join("tokenizer"), None).map_err(text)?;
    // The file that stopped it is corrected.
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

/// Writes the checksum of a changed state, if it still is one. Its names are those of another
/// directory.
fn reseal_preparation(at: &Path) {
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

/// Writes the checksums of a changed checkpoint.
fn reseal_checkpoint(at: &Path) {
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
