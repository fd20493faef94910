//! Plain models: evaluated, converted, trained and exported; and what is wrong with some.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::Path;

use common::{Run, command, ssa, workplace};
use serde_json::{Value, json};
use ssa_model::{Method, Model, ModelConfig, ModelSettings};

/// Writes a plain model of bytes with biases or with norms of heads.
fn write_plain(directory: &Path, [qkv_bias, qk_norm]: [bool; 2]) {
    let settings = ModelSettings {
        vocab_size: 257,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: 256,
        initializer_range: 0.2,
        gated: false,
        qkv_bias,
        qk_norm,
        attention_method: Method::FULL,
        ..ModelSettings::ssa_1b()
    };
    Model::init(ModelConfig::new(settings).unwrap(), 3).unwrap().save(directory).unwrap();
    fs::write(directory.join("generation_config.json"), "{\"eos_token_id\": 256}").unwrap();
}

fn json_of(run: Run) -> Value {
    serde_json::from_str(&run.succeeds().stdout).unwrap()
}

/// Losses under full attention and at a budget.
fn perplexity(directory: &Path, model: &str) -> Value {
    let arguments = ["eval", "perplexity", "--model", model, "--data", "text", "--json"];
    let more = ["--budget", "8x2", "--sequence-length", "64"];
    json_of(ssa(directory, arguments.iter().chain(&more)))
}

#[test]
fn a_plain_model_becomes_an_ssa_model_and_plain_again() {
    for (name, family) in
        [([false, false], "llama"), ([true, false], "qwen2"), ([false, true], "qwen3")]
    {
        let directory = workplace();
        let at = |name: &str| directory.path().join(name);
        write_plain(&at("plain"), name);
        let config = |name: &str| -> Value {
            serde_json::from_slice(&fs::read(at(name).join("config.json")).unwrap()).unwrap()
        };
        assert_eq!(config("plain")["model_type"], family);
        assert!(!at("plain/modeling_ssa.py").exists());

        let convert = ["convert", "--from", "plain", "--to", "new/ssa"];
        let sizes = ["--block-size", "8", "--block-counts", "2"];
        let run = ssa(directory.path(), convert.iter().chain(&sizes)).succeeds();
        assert!(run.stderr.contains("no tokenizer.json"), "{}", run.stderr);
        assert!(run.stderr.contains("budget 8x2"), "{}", run.stderr);
        let converted = config("new/ssa");
        assert_eq!(
            (&converted["model_type"], &converted["block_size"]),
            (&json!("llama-nsa"), &json!(8))
        );
        assert!(at("new/ssa/generation_config.json").exists());
        assert!(at("new/ssa/modeling_ssa.py").exists());

        let [before, after] = ["plain", "new/ssa"].map(|model| perplexity(directory.path(), model));
        assert_eq!(before["modes"], after["modes"], "full and sparse losses stay the same");

        let export = ["export", "--model", "new/ssa", "--to", "again", "--as", "llama"];
        ssa(directory.path(), export).succeeds();
        for file in ["config.json", "model.safetensors", "generation_config.json"] {
            assert_eq!(
                fs::read(at("plain").join(file)).unwrap(),
                fs::read(at("again").join(file)).unwrap()
            );
        }

        ssa(directory.path(), convert).fails(2, &["new/ssa: exists", "name another --to"]);
        let twice = ["convert", "--from", "new/ssa", "--to", "twice"];
        ssa(directory.path(), twice).fails(2, &["has gates (self_attn.g_proj) already"]);
        assert!(!at("twice").exists());
    }
}

#[test]
fn a_converted_model_is_trained_in_part() {
    let directory = workplace();
    write_plain(&directory.path().join("plain"), [true, false]);
    ssa(directory.path(), ["convert", "--from", "plain", "--to", "ssa"]).succeeds();
    let config = "[data]\npaths = [\"text\"]\nsequence_length = 64\nheld_out_fraction = 0.2\n\
                  [training]\nsteps = 4\nbatch_size = 2\n[checkpoint]\nevery_steps = 2\n\
                  [objective]\nalpha_warmup_steps = 2\n\
                  [optimizer]\nlearning_rate = 1e-2\n\
                  trainable = [\"q_proj\", \"k_proj\", \"g_proj\"]";
    fs::write(directory.path().join("retrofit.toml"), config).unwrap();
    let train = |more: &[&str]| {
        let arguments = ["train", "retrofit.toml", "--plain", "--no-eval"];
        ssa(directory.path(), arguments.iter().chain(more))
    };
    let init = ["--set", "model.init_from=ssa", "--run-dir", "out"];
    let run = train(&init).succeeds();
    assert!(run.stderr.contains("weights: from ssa"), "{}", run.stderr);
    assert!(run.stderr.contains("frozen: all but "), "{}", run.stderr);
    let [before, after] =
        ["ssa", "out"].map(|model| perplexity(directory.path(), model)["modes"].clone());
    assert_ne!(before, after);
    let load = |path: &str| Model::load(&directory.path().join(path)).unwrap();
    let (before, after) = (load("ssa"), load("out/checkpoint"));
    let tensors = before.parameters().named().into_iter().zip(after.parameters().named());
    for ((name, before), (_, after)) in tensors {
        let trained = ["q_proj", "k_proj", "g_proj"].iter().any(|part| name.contains(part));
        assert_eq!(before.same_elements(after).unwrap(), !trained, "{name}");
    }

    // The same from a run, and from a plain model by a method that needs no gates.
    let more = ["--set", "model.init_from=out", "--run-dir", "more"];
    train(&more).succeeds();
    let plain = ["--set", "model.init_from=plain", "--set", "optimizer.trainable=[\"mlp\"]"];
    let full = ["--set", "objective.method=full", "--run-dir", "full"];
    train(&[plain, full].concat()).succeeds();
    train(&[&plain[..], &["--run-dir", "x"]].concat())
        .fails(2, &["`objective.method` is ssa", "`ssa convert`"]);
    let nothing = ["--set", "optimizer.frozen=[\"w_proj\"]", "--run-dir", "x"];
    train(&[&init[..2], &nothing].concat()).fails(
        2,
        &["`optimizer.frozen` is [\"w_proj\"]", "matches none", "hint: name whole parts"],
    );
    assert!(!directory.path().join("x").exists());
}

#[test]
fn models_of_the_hub_come_from_the_cache_without_a_network() {
    let directory = workplace();
    let snapshot = directory.path().join("hub/hub/models--me--tiny/snapshots/c0ffee");
    write_plain(&snapshot, [false, false]);
    let refs = directory.path().join("hub/hub/models--me--tiny/refs");
    fs::create_dir_all(&refs).unwrap();
    fs::write(refs.join("main"), "c0ffee").unwrap();
    let convert = |name: &str, to: &str| {
        let output = command(directory.path())
            .args(["convert", "--from", name, "--to", to])
            .env("HF_HOME", directory.path().join("hub"))
            .env("HF_HUB_OFFLINE", "1")
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for (name, to) in [("me/tiny", "a"), ("hf://me/tiny@main", "b"), ("me/tiny@c0ffee", "c")] {
        let (code, stderr) = convert(name, to);
        assert_eq!(code, 0, "{stderr}");
    }
    let (code, stderr) = convert("me/tiny@v2", "d");
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("v2 is not in the cache") && stderr.contains("hint: "), "{stderr}");
    let (code, stderr) = convert("absent", "d");
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("absent: no such file or directory"), "{stderr}");
}

#[test]
fn what_is_wrong_with_a_model_is_said() {
    let directory = workplace();
    let model = directory.path().join("model");
    write_plain(&model, [false, false]);
    let config: Value =
        serde_json::from_slice(&fs::read(model.join("config.json")).unwrap()).unwrap();
    let eval =
        || ssa(directory.path(), ["eval", "perplexity", "--model", "model", "--data", "text"]);
    let change = |key: &str, value: Value, code: i32, parts: &[&str]| {
        let mut changed = config.clone();
        changed[key] = value;
        fs::write(model.join("config.json"), changed.to_string()).unwrap();
        eval().fails(code, parts);
    };
    change("model_type", json!("gemma"), 3, &["model/config.json: `model_type` is \"gemma\""]);
    change("quantization_config", json!({"bits": 4}), 3, &["quantized weights"]);
    change("hidden_act", json!("gelu"), 3, &["`hidden_act` is \"gelu\""]);
    change("model_type", json!("qwen2"), 3, &["no tensor `model.layers.0.self_attn.k_proj.bias`"]);
    change("vocab_size", json!(300), 3, &["embed_tokens", "[257, 32]", "[300, 32]"]);
    change("num_hidden_layers", json!(1), 3, &["does not describe", "model.layers.1"]);
    fs::write(model.join("config.json"), config.to_string()).unwrap();

    // A tokenizer of more tokens than the model has.
    let vocabulary: serde_json::Map<String, Value> =
        (0..400).map(|id| (format!("t{id}"), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "t0" },
    });
    fs::write(model.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let named = json!({ "eos_token": "t1" });
    fs::write(model.join("tokenizer_config.json"), named.to_string()).unwrap();
    let parts = ["vocabulary of 257", "its tokenizer has more tokens", "400"];
    eval().fails(3, &parts);
    ssa(directory.path(), ["convert", "--from", "model", "--to", "x"]).fails(3, &parts);
    assert!(!directory.path().join("x").exists());
    fs::remove_file(model.join("tokenizer.json")).unwrap();
    fs::remove_file(model.join("tokenizer_config.json")).unwrap();

    // Weights that are not finite.
    let broken = Model::load(&model).unwrap();
    let broken_config = broken.config().clone();
    let mut parameters = broken.into_parameters();
    parameters.layers[1].up_proj.as_mut_slice().unwrap()[0] = f32::NAN;
    Model::new(broken_config, parameters).unwrap().save(&model).unwrap();
    let parts = ["warning: model: `model.layers.1.mlp.up_proj.weight` holds NaN", "not finite"];
    eval().fails(4, &parts);
}
