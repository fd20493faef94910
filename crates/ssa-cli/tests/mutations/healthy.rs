//! Whole inputs of every kind, to be damaged.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::commands::STDIN;
use crate::common::{ssa, workplace};

/// `{"text": "one"}` and another line, compressed with xz.
const XZ: [u8; 96] = [
    253, 55, 122, 88, 90, 0, 0, 4, 230, 214, 180, 70, 2, 0, 33, 1, 22, 0, 0, 0, 116, 47, 229, 163,
    224, 0, 40, 0, 36, 93, 0, 61, 136, 138, 134, 148, 136, 19, 224, 243, 135, 36, 183, 104, 54, 9,
    204, 76, 119, 82, 94, 170, 129, 118, 189, 95, 47, 66, 224, 87, 29, 140, 50, 11, 3, 0, 0, 0, 4,
    155, 38, 121, 242, 52, 201, 253, 0, 1, 64, 41, 66, 98, 77, 146, 31, 182, 243, 125, 1, 0, 0, 0,
    0, 4, 89, 90,
];

/// A directory with a folder for each kind of input.
pub(crate) struct Healthy {
    directory: TempDir,
}

impl Healthy {
    pub(crate) fn new() -> Self {
        let this = Self { directory: workplace() };
        this.write_texts();
        this.write_tokenizers();
        this.write_models();
        this.write_corpora();
        this.write_run();
        this
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn ssa(&self, arguments: &str) {
        ssa(self.path(), arguments.split_whitespace()).succeeds();
    }

    fn write_texts(&self) {
        let lines = "{\"text\": \"one\"}\n{\"text\": \"two\", \"n\": [1, {\"a\": null}]}\n";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(lines.as_bytes()).unwrap();
        let utf16: Vec<u8> = lines.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.write("texts/a.txt", "some text, naïve\n".repeat(9));
        self.write("texts/b.jsonl", lines.repeat(3));
        self.write("texts/c.json", "[{\"text\": \"one\"},\n {\"text\": \"two\"}]\n");
        self.write("texts/d.jsonl.gz", gzip.finish().unwrap());
        self.write("texts/e.jsonl.zst", zstd::encode_all(lines.as_bytes(), 1).unwrap());
        self.write("texts/f.jsonl.xz", XZ);
        self.write("texts/g.jsonl", [b"\xff\xfe".as_slice(), &utf16].concat());
        self.write("texts/patterns", PATTERNS);
        copy_tree(&cases().join("19-hub-offline/hf"), &self.at("texts/hf"));
        for (from, to) in [
            ("01-ending-bz2-upper/a.jsonl.bz2", "h.jsonl.bz2"),
            ("16-zstd-long/a.jsonl.zst", "i.jsonl.zst"),
            ("17-parquet-codecs/lz4.parquet", "j.parquet"),
            ("17-parquet-codecs/brotli.parquet", "k.parquet"),
        ] {
            self.write(&format!("texts/{to}"), fs::read(cases().join(from)).unwrap());
        }
        let turns = json!([
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": [{ "type": "text", "text": "hi" }] },
            { "role": "assistant", "content": "yes", "tool_calls": [{ "type": "function",
                "function": { "name": "get", "arguments": { "x": [1, 2.5, null] } } }] },
            { "role": "tool", "name": "get", "content": "<b> & c" },
        ]);
        let row = json!({ "messages": turns, "tools": [{ "type": "function",
            "function": { "name": "get", "parameters": { "type": "object" } } }] });
        self.write("chat/c.jsonl", row.to_string() + "\n");
        let parquet = fs::read(cases().join("25-null-content/c.parquet")).unwrap();
        self.write("chat/c.parquet", parquet);
        self.write("snapshot/snapshot.gz", {
            let documents = ssa_data::snapshot().unwrap();
            let mut bytes = Vec::new();
            ssa_data::encode_snapshot(&documents[..9], &mut bytes).unwrap();
            let mut lines = Vec::new();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut lines).unwrap();
            self.write("snapshot/snapshot.jsonl", lines);
            bytes
        });
    }

    fn write_tokenizers(&self) {
        self.ssa("data train-tokenizer text --vocab-size 280 --output tokenizer");
        copy_tree(&cases().join("11-bits-per-byte-nfkc/tok"), &self.at("nfkc"));
        let config = fs::read(self.at("tokenizer/tokenizer_config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        config["added_tokens_decoder"] = json!({ "280": { "content": "<|im_end|>", "lstrip": false,
            "rstrip": false, "normalized": false, "single_word": false, "special": true } });
        config["additional_special_tokens"] = json!(["<|im_end|>"]);
        config["chat_template"] = json!("{% for m in messages %}{{ m.role }}{% endfor %}");
        self.write("tokenizer/tokenizer_config.json", config.to_string());
        self.write("tokenizer/special_tokens_map.json", "{\"pad_token\": \"<|im_end|>\"}");
        // Templates of real models, beside the conversation that they render.
        let golden = ssa_testkit::golden_dir().join("chat");
        let mut files: Vec<_> = fs::read_dir(golden).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        for (number, path) in files.iter().enumerate() {
            let golden: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            let template = golden["template"].as_str().unwrap();
            self.write(&format!("templates/{number:02}.jinja"), template);
        }
        copy_tree(&self.at("tokenizer"), &self.at("templates/tokenizer"));
        copy_tree(&self.at("tokenizer"), &self.at("chat/tokenizer"));
    }

    fn write_models(&self) {
        copy_tree(&cases().join("shared/model"), &self.at("model"));
        let weights = fs::read(self.at("model/model.safetensors")).unwrap();
        let names = safetensors::SafeTensors::deserialize(&weights).unwrap();
        let map = names.names().into_iter().map(|name| (name.to_owned(), "one.safetensors".into()));
        let map = json!({ "metadata": {}, "weight_map": Value::Object(map.collect()) });
        self.write("sharded/model.safetensors.index.json", map.to_string());
        self.write("sharded/one.safetensors", &weights);
        fs::copy(self.at("model/config.json"), self.at("sharded/config.json")).unwrap();
        self.write(
            "forward/in.safetensors",
            fs::read(cases().join("shared/in.safetensors")).unwrap(),
        );
        copy_tree(&self.at("model"), &self.at("forward/model"));
        // A model without gates, and one with a tokenizer for its ids and a chat template.
        copy_tree(&ssa_testkit::golden_dir().join("families/llama_sharded"), &self.at("plain"));
        fs::remove_file(self.at("plain/expected.safetensors")).unwrap();
        self.write("plain/generation_config.json", "{\"eos_token_id\": [1, 2]}");
        copy_tree(&self.at("model"), &self.at("chat-model"));
        self.write("chat-model/tokenizer.json", {
            let json = fs::read(cases().join("shared/tok/tokenizer.json")).unwrap();
            let mut json: Value = serde_json::from_slice(&json).unwrap();
            // The model has an id for each byte and for the end.
            json["model"]["merges"] = json!([]);
            json["model"]["vocab"].as_object_mut().unwrap().retain(|_, id| id.as_u64() < Some(257));
            json.to_string()
        });
        self.write(
            "chat-model/tokenizer_config.json",
            json!({ "eos_token": "<|endoftext|>",
                "chat_template": "{% for m in messages %}{{ m.role[0] ~ m.content }}{% endfor %}" })
            .to_string(),
        );
        let turns = "hi\n\"\"\"\ntwo\nlines\n\"\"\"\n/reset\n/none\nnaïve\n/quit\n";
        self.write(&format!("chat-model/{STDIN}"), turns);
        self.write("config/overrides", OVERRIDES);
        self.write("config/budgets", "16x4\n1x1\n1024x99\n");
        fs::copy(self.at("tiny.toml"), self.at("config/tiny.toml")).unwrap();
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/demo.toml");
        fs::copy(demo, self.at("config/demo.toml")).unwrap();
    }

    fn write_corpora(&self) {
        self.ssa("data prepare text --tokenizer tokenizer --shard-tokens 900 --output corpus");
        self.write("preparation/docs.jsonl", "{\"text\": \"a document of words\"}\n".repeat(60));
        self.write("preparation/bad.txt", b"caf\xe9");
        let prepare = "data prepare preparation/docs.jsonl preparation/bad.txt --shard-tokens 400 \
                       --tokenizer tokenizer --output preparation/o";
        ssa(self.path(), prepare.split_whitespace()).fails(3, &["bad.txt"]);
        copy_tree(&self.at("tokenizer"), &self.at("preparation/tokenizer"));
    }

    /// A run that has two of its six steps to go.
    fn write_run(&self) {
        let settings = [
            "checkpoint.every_steps=2",
            "checkpoint.keep_last=3",
            "monitoring.probe_every=2",
            "monitoring.validate_every=2",
            "monitoring.probe_tokens=64",
            "monitoring.validation_tokens=64",
            "evaluation.budgets=8x1",
            "evaluation.tokens=128",
            "evaluation.analysis_tokens=64",
        ];
        let settings: String = settings.iter().map(|text| format!(" --set {text}")).collect();
        fs::create_dir(self.at("run")).unwrap();
        copy_tree(&self.at("text"), &self.at("run/text"));
        fs::copy(self.at("tiny.toml"), self.at("run/tiny.toml")).unwrap();
        let train = format!("train tiny.toml --threads 1 --run-dir r{settings}");
        ssa(&self.at("run"), train.split_whitespace()).succeeds();
        for file in ["summary.json", "report.html"] {
            fs::remove_file(self.at("run/r").join(file)).unwrap();
        }
        fs::remove_dir_all(self.at("run/r/checkpoints/step-6")).unwrap();
        fs::remove_file(self.at("run/r/checkpoints/latest")).unwrap();
    }
}

const OVERRIDES: &str = "\
model.vocab_size=300
data.paths=[\"text\", \"b\"]
evaluation.budgets=16x4,8x2
objective.method=nsa
training.batch_size=9
";

/// The last one is in the cache of the Hub, which lies beside it.
const PATTERNS: &str = "\
b*.jsonl
[a-c].{json,txt}
hf://datasets/foo/bar@0123456789abcdef0123456789abcdef01234567/a.jsonl
";

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases")
}

/// Copies a directory with all that is in it; links become what they point to.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
