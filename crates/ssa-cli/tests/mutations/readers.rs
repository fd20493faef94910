//! Every reader of files, as a function of a directory and of the file in it that is damaged.

use std::path::Path;

use crate::reading;

/// A reader and what is damaged for it.
pub(crate) struct Reader {
    pub(crate) name: &'static str,
    /// Folder of the healthy inputs.
    pub(crate) files: &'static str,
    /// Files in it, of which one is damaged.
    pub(crate) damaged: &'static [&'static str],
    /// Makes the checksums of every second input right again.
    pub(crate) reseal: fn(&Path),
    /// Memory that an input may take.
    pub(crate) mebibytes: u64,
    /// Whether reading or resealing changes other files.
    pub(crate) writes: bool,
    pub(crate) read: fn(&Path, &str) -> Result<(), String>,
}

/// What a tokenizer takes for ids up to 2^24, which are allowed.
const TOKENIZER_MEBIBYTES: u64 = 1200;
/// What a chat template may make and keep before its fuel is spent.
const TEMPLATE_MEBIBYTES: u64 = 600;
/// What documents of [`reading::MAX_DOCUMENT_BYTES`] and the windows of their compression take.
const TEXT_MEBIBYTES: u64 = 256;

fn reader(
    name: &'static str,
    files: &'static str,
    damaged: &'static [&'static str],
    read: fn(&Path, &str) -> Result<(), String>,
) -> Reader {
    Reader { name, files, damaged, reseal: |_| (), mebibytes: 64, writes: false, read }
}

pub(crate) fn all() -> Vec<Reader> {
    vec![
        reader("config", "config", &["tiny.toml", "demo.toml"], reading::config),
        reader("overrides", "config", &["overrides"], reading::overrides),
        reader("budgets", "config", &["budgets"], reading::budgets),
        reader("model-config", "model", &["config.json"], reading::model_config),
        reader("model", "model", &["config.json", "model.safetensors"], reading::model),
        reader(
            "sharded-model",
            "sharded",
            &["model.safetensors.index.json", "one.safetensors", "config.json"],
            reading::model,
        ),
        reader(
            "plain-model",
            "plain",
            &["config.json", "model.safetensors.index.json", "model-00002-of-00003.safetensors"],
            reading::model,
        ),
        reader("tensors", "model", &["model.safetensors"], reading::tensors),
        Reader {
            mebibytes: TOKENIZER_MEBIBYTES,
            ..reader(
                "tokenizer",
                "tokenizer",
                &["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"],
                reading::tokenizer,
            )
        },
        Reader {
            mebibytes: TOKENIZER_MEBIBYTES,
            ..reader("normalizer", "nfkc", &["tokenizer.json"], reading::tokenizer)
        },
        Reader {
            mebibytes: TEMPLATE_MEBIBYTES,
            ..reader("chat-templates", "templates", TEMPLATES, reading::template)
        },
        Reader {
            mebibytes: TEMPLATE_MEBIBYTES,
            ..reader("conversations", "chat", &["c.jsonl", "c.parquet"], reading::conversations)
        },
        Reader { mebibytes: TEXT_MEBIBYTES, ..reader("texts", "texts", TEXTS, reading::texts) },
        reader("patterns", "texts", &["patterns"], reading::patterns),
        Reader {
            mebibytes: TEXT_MEBIBYTES,
            ..reader("snapshot", "snapshot", &["snapshot.gz", "snapshot.jsonl"], reading::snapshot)
        },
        Reader {
            mebibytes: TOKENIZER_MEBIBYTES,
            ..reader(
                "corpus",
                "corpus",
                &["manifest.json", "00000.bin", "00000.idx", "00001.bytes", "tokenizer.json"],
                reading::corpus,
            )
        },
        reader(
            "shards",
            "corpus",
            &["00000.bin", "00000.idx", "00000.bytes", "00001.idx", "00001.bin"],
            reading::shards,
        ),
        Reader {
            reseal: reading::reseal_preparation,
            writes: true,
            ..reader(
                "preparation",
                "preparation",
                &["o/preparation.json", "o/00000.idx", "o/00000.bytes", "docs.jsonl"],
                reading::preparation,
            )
        },
        Reader {
            reseal: reading::reseal_checkpoint,
            writes: true,
            ..reader(
                "checkpoint",
                "run/r/checkpoints/step-4",
                &["state.json", "config.toml", "config.json", "SHA256SUMS"],
                reading::checkpoint,
            )
        },
        Reader {
            writes: true,
            ..reader(
                "run-directory",
                "run",
                &["r/config.toml", "r/journal.jsonl", "r/best/best.json"],
                reading::run_directory,
            )
        },
        reader("metrics", "run/r", &["metrics.jsonl"], reading::metrics),
    ]
}

const TEMPLATES: &[&str] = &[
    "00.jinja", "01.jinja", "02.jinja", "03.jinja", "04.jinja", "05.jinja", "06.jinja", "07.jinja",
    "08.jinja", "09.jinja", "10.jinja", "11.jinja",
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
