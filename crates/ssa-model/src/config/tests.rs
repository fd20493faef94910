use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::parameter_shapes;
use crate::testing::{small_config, small_settings};

fn read(json: &Value) -> Result<ModelConfig> {
    ModelConfig::from_json("a/config.json", json.as_object().unwrap())
}

/// The JSON of the small model with one key changed or removed, without the other keys for the same
/// value.
fn changed(key: &str, value: Option<Value>) -> Value {
    let mut json = small_config().to_json();
    let map = json.as_object_mut().unwrap();
    let others: &[&str] = match key {
        "rope_parameters" => &["rope_scaling", "rope_theta"],
        "rope_scaling" | "rope_theta" => &["rope_parameters"],
        _ => &[],
    };
    map.retain(|key, _| !others.contains(&key.as_str()));
    match value {
        Some(value) => map.insert(key.to_owned(), value),
        None => map.remove(key),
    };
    json
}

#[test]
fn impossible_values_name_file_key_and_value() {
    let llama3 = |changes: Value| {
        let mut scaling = json!({
            "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
        scaling.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        scaling
    };
    let cases = [
        (
            "model_type",
            json!("gpt2"),
            "`model_type` is \"gpt2\", expected one of \"llama-nsa\", \"llama\", \"mistral\", \
             \"qwen2\", \"qwen3\"",
        ),
        (
            "quantization_config",
            json!({"bits": 4}),
            "`quantization_config` is {\"bits\":4}, expected no value: quantized weights",
        ),
        ("num_experts", json!(8), "`num_experts` is 8, expected no value: mixtures of experts"),
        (
            "partial_rotary_factor",
            json!(0.5),
            "`partial_rotary_factor` is 0.5, expected 1: RoPE turns whole heads",
        ),
        (
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
            "`layer_types` is [\"full_attention\",\"sliding_attention\"], expected \
             \"full_attention\"",
        ),
        (
            "dtype",
            json!("bfloat16"),
            "`torch_dtype` is \"float32\", expected \"bfloat16\", as under",
        ),
        ("attention_bias", json!(true), "`attention_bias` is true, expected false"),
        ("mlp_bias", json!(true), "`mlp_bias` is true, expected false"),
        ("hidden_act", json!("gelu"), "`hidden_act` is \"gelu\", expected \"silu\""),
        ("vocab_size", json!(0), "`vocab_size` is 0, expected at least 1"),
        ("hidden_size", json!(-4), "`hidden_size` is -4, expected an integer"),
        ("hidden_size", json!("20"), "`hidden_size` is \"20\", expected an integer"),
        (
            "num_key_value_heads",
            json!(4),
            "`num_attention_heads` is 6, expected a multiple of num_key_value_heads (4)",
        ),
        ("num_key_value_heads", json!(0), "`num_key_value_heads` is 0, expected at least 1"),
        ("num_attention_heads", json!(0), "`num_attention_heads` is 0, expected at least 1"),
        ("head_dim", json!(7), "`head_dim` is 7, expected an even number"),
        ("block_size", json!(0), "`block_size` is 0, expected at least 1"),
        ("block_counts", json!(0), "`block_counts` is 0, expected at least 1"),
        (
            "block_counts",
            json!(u64::MAX),
            "`block_counts` is 18446744073709551615, expected a number whose product",
        ),
        ("rms_norm_eps", json!(0.0), "`rms_norm_eps` is 0, expected a positive number"),
        ("rope_theta", json!("big"), "`rope_theta` is \"big\", expected a number"),
        (
            "initializer_range",
            json!(-1.0),
            "`initializer_range` is -1, expected a number from 0 to 1000000",
        ),
        ("tie_word_embeddings", json!(1), "`tie_word_embeddings` is 1, expected true or false"),
        ("bos_token_id", json!([1]), "`bos_token_id` is [1], expected a token ID"),
        ("eos_token_id", json!([5, -2]), "`eos_token_id` is [5,-2], expected a token ID"),
        ("vocab_size", json!(16_777_217), "`vocab_size` is 16777217, expected at most 16777216"),
        (
            "hidden_size",
            json!(1_i64 << 62),
            "`hidden_size` is 4611686018427387904, expected at most",
        ),
        ("num_hidden_layers", json!(1_000_000_000), "`num_hidden_layers` is 1000000000, expected"),
        ("block_counts", json!(1 << 21), "`block_counts` is 2097152, expected at most 1048576"),
        ("window_size", json!(1_i64 << 40), "`window_size` is 1099511627776, expected at most"),
        ("initializer_range", json!(1e300), "`initializer_range` is 1000"),
        (
            "attention_method",
            json!("dense"),
            "`attention_method` is \"dense\", expected one of full, moba, nsa, ssa",
        ),
        (
            "attention_method",
            json!("nsa"),
            "`window_size` is 0, expected at least 1 for the attention method nsa",
        ),
        (
            "rope_scaling",
            json!("llama3"),
            "`rope_scaling` is \"llama3\", expected an object or null",
        ),
        (
            "rope_scaling",
            json!({"type": "longrope"}),
            "`rope_scaling.type` is \"longrope\", expected \"default\", \"linear\", \"llama3\" or \
             \"yarn\"",
        ),
        ("rope_scaling", json!({"type": "yarn"}), "`rope_scaling.factor` is missing"),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 4.0, "attention_factor": 0}),
            "`rope_scaling.attention_factor` is 0, expected a positive number",
        ),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 4.0, "beta_slow": -1}),
            "`rope_scaling.beta_slow` is -1, expected a positive number",
        ),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 4.0, "beta_fast": 1}),
            "`rope_scaling.beta_fast` is 1, expected a number above beta_slow",
        ),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 0}),
            "`rope_scaling.original_max_position_embeddings` is 0, expected at least 1",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1.0}),
            "`rope_theta` is 1, expected a number above 1",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "dynamic"}),
            "`rope_parameters.rope_type` is \"dynamic\"",
        ),
        ("rope_parameters", json!({"rope_type": "linear"}), "`rope_parameters.factor` is missing"),
        (
            "rope_parameters",
            json!({"rope_type": "linear", "factor": 0.5}),
            "`rope_scaling.factor` is 0.5, expected a number of at least 1",
        ),
        ("rope_scaling", json!({"type": "llama3"}), "`rope_scaling.factor` is missing"),
        (
            "rope_scaling",
            llama3(json!({"factor": 0.5})),
            "`rope_scaling.factor` is 0.5, expected a number of at least 1",
        ),
        (
            "rope_scaling",
            llama3(json!({"low_freq_factor": 0})),
            "`rope_scaling.low_freq_factor` is 0",
        ),
        (
            "rope_scaling",
            llama3(json!({"high_freq_factor": 1})),
            "`rope_scaling.high_freq_factor` is 1, expected a number above",
        ),
        (
            "rope_scaling",
            llama3(json!({"original_max_position_embeddings": 0})),
            "`rope_scaling.original_max_position_embeddings` is 0",
        ),
    ];
    for (key, value, expected) in cases {
        let error = read(&changed(key, Some(value))).unwrap_err().to_string();
        assert!(error.starts_with(&format!("a/config.json: {expected}")), "{error}");
    }
}

#[test]
fn sizes_must_be_there() {
    for key in [
        "model_type",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "block_size",
        "block_counts",
    ] {
        for absent in [None, Some(Value::Null)] {
            let error = read(&changed(key, absent)).unwrap_err().to_string();
            assert_eq!(error, format!("a/config.json: `{key}` is missing, expected a value"));
        }
    }
}

#[test]
fn missing_keys_have_the_released_defaults() {
    let json = json!({
        "model_type": "llama-nsa", "vocab_size": 10, "hidden_size": 32, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 4, "block_size": 16, "block_counts": 4,
        "some_unknown_key": { "of": "Hugging Face" },
    });
    let expected = ModelSettings {
        vocab_size: 10,
        hidden_size: 32,
        intermediate_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        head_dim: 8,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        max_position_embeddings: 2048,
        initializer_range: 0.02,
        tie_word_embeddings: false,
        gated: true,
        qkv_bias: false,
        qk_norm: false,
        budget: SparseBudget::new(16, 4).unwrap(),
        window_size: 0,
        attention_method: Method::SSA,
        bos_token_id: None,
        eos_token_id: vec![],
    };
    assert_eq!(read(&json).unwrap().settings(), expected);
}

#[test]
fn rope_is_written_in_the_old_and_the_new_form() {
    let llama3 = RopeScaling::Llama3 {
        factor: 4.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 128,
    };
    let yarn = RopeScaling::Yarn(yarn(1.25));
    let cases = [(RopeScaling::None, "default"), (llama3, "llama3"), (yarn, "yarn")];
    for (rope_scaling, rope_type) in cases {
        let config = ModelConfig::new(ModelSettings { rope_scaling, ..small_settings() }).unwrap();
        let json = config.to_json();
        assert_eq!(json["rope_parameters"]["rope_type"], rope_type);
        assert_eq!(json["rope_parameters"]["rope_theta"], json["rope_theta"]);
        // Either form alone reads back to the same model.
        for keys in [vec!["rope_parameters"], vec!["rope_scaling", "rope_theta"]] {
            let mut one = json.as_object().unwrap().clone();
            one.retain(|key, _| !keys.contains(&key.as_str()));
            assert_eq!(ModelConfig::from_json("test", &one).unwrap(), config, "without {keys:?}");
        }
    }
}

#[test]
fn rope_is_read_in_the_old_and_the_new_form() {
    let values = json!({
        "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let with = |extra: Value| {
        let mut object = values.clone();
        object.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        object
    };
    let expected = RopeScaling::Llama3 {
        factor: 4.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    for (key, value, theta) in [
        ("rope_scaling", with(json!({"type": "llama3"})), 500_000.0),
        ("rope_scaling", with(json!({"rope_type": "llama3"})), 500_000.0),
        ("rope_parameters", with(json!({"rope_type": "llama3", "rope_theta": 1e4})), 1e4),
        ("rope_parameters", with(json!({"rope_type": "llama3"})), 10_000.0),
    ] {
        let config = read(&changed(key, Some(value))).unwrap();
        assert_eq!((&config.rope_scaling, config.rope_theta), (&expected, theta));
    }
    let config = read(&changed("rope_parameters", Some(json!({"rope_type": "default"})))).unwrap();
    assert_eq!(config.rope_scaling, RopeScaling::None);
}

fn yarn(attention_factor: f64) -> Yarn {
    Yarn {
        factor: 4.0,
        attention_factor,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_max_position_embeddings: 8192,
        truncate: true,
    }
}

#[test]
fn yarn_has_the_defaults_of_transformers() {
    let with = |extra: Value| {
        let mut object = json!({
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192,
        });
        object.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        read(&changed("rope_scaling", Some(object))).unwrap().rope_scaling.clone()
    };
    let mscale = |weight: f64| 0.1 * weight * 4_f64.ln() + 1.0;
    for (extra, expected) in [
        (json!({}), yarn(mscale(1.0))),
        (json!({"attention_factor": 0.5, "mscale": 2.0}), yarn(0.5)),
        (json!({"mscale": 2.0}), yarn(mscale(1.0))),
        (json!({"mscale": 2.0, "mscale_all_dim": 0.5}), yarn(mscale(2.0) / mscale(0.5))),
        (json!({"beta_fast": 0, "beta_slow": null}), yarn(mscale(1.0))),
        (json!({"truncate": false}), Yarn { truncate: false, ..yarn(mscale(1.0)) }),
        (json!({"beta_fast": 8}), Yarn { beta_fast: 8.0, ..yarn(mscale(1.0)) }),
    ] {
        assert_eq!(with(extra), RopeScaling::Yarn(expected));
    }
    let read = read(&changed("rope_scaling", Some(json!({"type": "yarn", "factor": 1.0}))));
    let read = read.unwrap();
    let expected = Yarn {
        factor: 1.0,
        original_max_position_embeddings: read.max_position_embeddings,
        ..yarn(1.0)
    };
    assert_eq!(read.rope_scaling, RopeScaling::Yarn(expected));
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    let read_with = |extra: Value| {
        let mut json = changed("rope_scaling", Some(json!({"rope_type": "linear", "factor": 2.0})));
        json.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        read(&json)
    };
    let parameters =
        json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500_000.0}});
    assert_eq!(read_with(parameters).unwrap().rope_scaling, RopeScaling::Linear { factor: 2.0 });
    for (extra, expected) in [
        (
            json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
            "`rope_parameters.rope_theta` is 10000.0, expected 500000, the value of the other key",
        ),
        (
            json!({"rope_parameters": {"rope_type": "linear", "factor": 4.0}}),
            "`rope_parameters` is {\"rope_type\":\"linear\",\"factor\":4.0}, expected the same \
             scaling",
        ),
        (
            json!({"rope_parameters": {"rope_type": "default"}}),
            "`rope_parameters` is {\"rope_type\":\"default\"}, expected the same scaling",
        ),
    ] {
        let error = read_with(extra).unwrap_err().to_string();
        assert!(error.starts_with(&format!("a/config.json: {expected}")), "{error}");
    }
}

/// A plain model of a family with the keys that it must have.
fn plain(model_type: &str, extra: Value) -> Result<ModelConfig> {
    let mut json = json!({
        "model_type": model_type, "vocab_size": 10, "hidden_size": 64, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 32,
    });
    json.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    read(&json)
}

#[test]
fn families_differ_as_those_of_transformers() {
    for (name, kv_heads, head_dim, positions, variant) in [
        ("llama", 32, 2, 2048, [false, false]),
        ("qwen2", 32, 2, 32_768, [true, false]),
        ("qwen3", 32, 128, 32_768, [false, true]),
    ] {
        let config = plain(name, json!({})).unwrap();
        assert!(!config.gated);
        assert_eq!([config.qkv_bias, config.qk_norm], variant, "{name}");
        assert_eq!(config.num_key_value_heads, kv_heads, "{name}");
        assert_eq!((config.head_dim, config.max_position_embeddings), (head_dim, positions));
        assert_eq!((config.attention_method, config.budget), (Method::FULL, SparseBudget::PAPER));
        let json = config.to_json();
        assert_eq!(json["model_type"], name);
        assert_eq!(read(&json).unwrap(), config);
    }
    // Without a window it is a Llama.
    let mistral = plain("mistral", json!({ "sliding_window": null })).unwrap();
    assert_eq!((mistral.num_key_value_heads, mistral.max_position_embeddings), (8, 131_072));
    assert_eq!(mistral.to_json()["model_type"], "llama");
}

#[test]
fn an_ssa_model_keeps_biases_and_norms() {
    let settings = ModelSettings { qkv_bias: true, qk_norm: true, ..small_settings() };
    let config = ModelConfig::new(settings).unwrap();
    let json = config.to_json();
    assert_eq!((&json["model_type"], &json["qkv_bias"]), (&json!("llama-nsa"), &json!(true)));
    assert_eq!(read(&json).unwrap(), config);
    assert!(small_config().to_json().get("qkv_bias").is_none());
}

#[test]
fn sliding_windows_are_refused_unless_no_document_reaches_them() {
    let windowed = json!({ "use_sliding_window": true, "sliding_window": 4096 });
    let short = json!({ "sliding_window": 4096, "max_position_embeddings": 4096 });
    for (family, extra, refused) in [
        ("mistral", json!({}), true),
        ("mistral", json!({ "sliding_window": 4096 }), true),
        ("mistral", short, false),
        ("qwen2", json!({ "sliding_window": 4096 }), false),
        ("qwen2", windowed.clone(), true),
        ("qwen3", windowed, true),
        ("llama", json!({ "sliding_window": 4096 }), false),
    ] {
        match plain(family, extra.clone()) {
            Ok(_) => assert!(!refused, "{family} {extra}"),
            Err(error) => {
                let error = error.to_string();
                assert!(
                    refused && error.starts_with("a/config.json: `sliding_window` is"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn methods_that_mix_outputs_need_gates() {
    for (method, needs) in [("full", false), ("moba", false), ("nsa", true), ("ssa", true)] {
        let result = plain("llama", json!({ "attention_method": method, "window_size": 4 }));
        assert_eq!(result.is_err(), needs, "{method}");
        if let Err(error) = result {
            let error = error.to_string();
            let expected = format!("`attention_method` is {method}, expected full or moba");
            assert!(error.contains(&expected) && error.contains("`ssa convert`"), "{error}");
        }
    }
    let both = ModelSettings { gated: false, qkv_bias: true, qk_norm: true, ..small_settings() };
    let both = ModelSettings { attention_method: Method::FULL, ..both };
    let error = ModelConfig::new(both).unwrap_err().to_string();
    assert!(error.contains("`qkv_bias` is true, expected false"), "{error}");
}

#[test]
fn values_that_mean_nothing_else_are_read() {
    let tokens = |key: &str, value: Value| {
        let config = read(&changed(key, Some(value))).unwrap();
        (config.bos_token_id, config.eos_token_id.clone())
    };
    assert_eq!(tokens("bos_token_id", json!(-1)).0, None);
    assert_eq!(tokens("bos_token_id", json!(1_000_000)).0, Some(1_000_000));
    assert!(tokens("eos_token_id", json!(-1)).1.is_empty());
    assert_eq!(tokens("eos_token_id", json!([5, 97, -1])).1, [5, 97]);
    let scaling = json!({"type": "linear", "factor": 1.0});
    let config = read(&changed("rope_scaling", Some(scaling))).unwrap();
    assert_eq!(config.rope_scaling, RopeScaling::None);
    let config = read(&changed("hidden_act", Some(json!("swish")))).unwrap();
    assert_eq!(config.to_json()["hidden_act"], "silu");
}

#[test]
fn presets_have_the_published_sizes() {
    for (name, millions) in [("ssa-1b", 1214), ("ssa-300m", 369)] {
        let config = ModelConfig::new(ModelSettings::preset(name).unwrap()).unwrap();
        let count: usize = parameter_shapes(&config)
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        assert_eq!((count + 500_000) / 1_000_000, millions, "{name}: {count}");
    }
    let error = ModelSettings::preset("ssa-2b").unwrap_err().to_string();
    assert!(error.contains("`ssa-1b` or `ssa-300m`\nhint: did you mean `ssa-1b`?"), "{error}");
    assert_eq!(ModelConfig::new(ModelSettings::ssa_1b()).unwrap().softmax_scale(), 0.125);
}

fn settings() -> impl Strategy<Value = ModelSettings> {
    let scaling = prop_oneof![
        Just(RopeScaling::None),
        (1.5..64.0).prop_map(|factor| RopeScaling::Linear { factor }),
        (1.0..64.0, 0.1..2.0, 2.5..9.0, 1..100_000_usize).prop_map(
            |(factor, low, high, original)| {
                RopeScaling::Llama3 {
                    factor,
                    low_freq_factor: low,
                    high_freq_factor: high,
                    original_max_position_embeddings: original,
                }
            }
        ),
        (1.0..64.0, 0.5..2.0, 5.0..64.0, 0.1..4.0, 1..100_000_usize, any::<bool>()).prop_map(
            |(factor, attention_factor, beta_fast, beta_slow, original, truncate)| {
                RopeScaling::Yarn(Yarn {
                    factor,
                    attention_factor,
                    beta_fast,
                    beta_slow,
                    original_max_position_embeddings: original,
                    truncate,
                })
            }
        ),
    ];
    let heads = (1..5_usize, 1..5_usize, 1..65_usize);
    let numbers = (1e-9..1e-3, 1.5..1e7, 0.0..1.0);
    let method = prop::sample::select(Method::ALL);
    let tokens = (prop::option::of(0..50_u32), prop::collection::vec(0..50_u32, 0..3));
    let blocks = (1..300_usize, 1..300_usize, 1..300_usize, any::<bool>());
    (scaling, heads, numbers, method, tokens, blocks).prop_map(
        |(
            rope_scaling,
            (kv, group, half),
            (eps, theta, range),
            attention_method,
            (bos, eos),
            blocks,
        )| {
            ModelSettings {
                num_attention_heads: kv * group,
                num_key_value_heads: kv,
                head_dim: 2 * half,
                rms_norm_eps: eps,
                rope_theta: theta,
                rope_scaling,
                initializer_range: range,
                tie_word_embeddings: blocks.3,
                budget: SparseBudget::new(blocks.0, blocks.1).unwrap(),
                window_size: blocks.2,
                attention_method,
                bos_token_id: bos,
                eos_token_id: eos,
                ..small_settings()
            }
        },
    )
}

proptest! {
    #[test]
    fn json_round_trips(settings in settings()) {
        let config = ModelConfig::new(settings).unwrap();
        let text = format!("{:#}", config.to_json());
        prop_assert_eq!(read(&serde_json::from_str(&text).unwrap()).unwrap(), config);
    }
}
