use tempfile::tempdir;

use super::*;
use crate::TrainConfig;

fn plan(overrides: &[&str]) -> TrainPlan {
    let mut config = TrainConfig::default();
    config.model.hidden_size = 8;
    config.model.intermediate_size = 12;
    config.model.head_dim = 4;
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    TrainPlan::new(TrainConfig::parse(&config.to_toml(), "test", &overrides).unwrap()).unwrap()
}

#[test]
fn the_seed_decides_on_random_weights() {
    let [first, again, other] = ["run.seed=1", "run.seed=1", "run.seed=2"]
        .map(|seed| initial_model(&plan(&[seed])).unwrap());
    assert!(first.parameters().same_elements(again.parameters()).unwrap());
    assert!(!first.parameters().same_elements(other.parameters()).unwrap());
}

#[test]
fn a_checkpoint_gives_its_weights_to_the_configured_model() {
    let directory = tempdir().unwrap();
    let trained = initial_model(&plan(&[])).unwrap();
    trained.save(directory.path()).unwrap();
    let init_from = format!("model.init_from={}", directory.path().display());

    let continued = plan(&[
        &init_from,
        "run.seed=9",
        "model.block_counts=2",
        "data.sequence_length=2048",
        "model.rope_scaling.factor=4",
        "objective.method=moba",
    ]);
    let model = initial_model(&continued).unwrap();
    assert!(model.parameters().same_elements(trained.parameters()).unwrap());
    assert_eq!(model.config(), continued.model());

    let theta =
        initial_model(&plan(&[&init_from, "model.rope_theta=1e6"])).err().unwrap().to_string();
    assert!(theta.contains("rope_theta is 1000000, the checkpoint has 500000"), "{theta}");

    let other = plan(&[&init_from, "model.head_dim=6", "model.num_hidden_layers=2"]);
    let message = initial_model(&other).err().unwrap().to_string();
    let expected = "differ: num_hidden_layers is 2, the checkpoint has 4, head_dim is 6, the \
        checkpoint has 4\nhint: set";
    assert!(message.starts_with(&directory.path().display().to_string()), "{message}");
    assert!(message.contains(expected), "{message}");
}

#[test]
fn a_checkpoint_must_know_every_token_of_the_data() {
    let directory = tempdir().unwrap();
    let save = |overrides: &[&str]| {
        initial_model(&plan(overrides)).unwrap().save(directory.path()).unwrap()
    };
    let init_from = format!("model.init_from={}", directory.path().display());

    // Padded to more rows than tokens, as in published checkpoints.
    save(&["model.vocab_size=320"]);
    let padded = initial_model(&plan(&[&init_from, "model.vocab_size=320"])).unwrap();
    assert_eq!(padded.config().vocab_size, 320);
    let message = initial_model(&plan(&[&init_from])).err().unwrap().to_string();
    assert!(message.contains("vocab_size is 257, the checkpoint has 320"), "{message}");

    let mut small = (**plan(&[]).model()).clone();
    small.vocab_size = 200;
    small.eos_token_id = vec![199];
    Model::init(ModelConfig::new(small).unwrap(), 0).unwrap().save(directory.path()).unwrap();
    let message = initial_model(&plan(&[&init_from])).err().unwrap().to_string();
    let expected = "the checkpoint has a vocabulary of 200, but the tokenizer of the data has one \
        of 257\nhint: prepare";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn a_missing_checkpoint_is_named() {
    let message = initial_model(&plan(&["model.init_from=no/such"])).err().unwrap().to_string();
    assert!(message.contains("no/such"), "{message}");
}

#[test]
fn keys_that_are_not_given_are_those_of_the_model() {
    let directory = tempdir().unwrap();
    let saved = plan(&[
        "model.num_attention_heads=6",
        "model.num_key_value_heads=2",
        "model.qk_norm=true",
        "model.vocab_size=300",
        "model.max_position_embeddings=4096",
        "model.block_counts=7",
        "model.rope_scaling.rope_type=linear",
        "model.rope_scaling.factor=2",
    ]);
    initial_model(&saved).unwrap().save(directory.path()).unwrap();
    let file = directory.path().join("run.toml");
    let load = |text: &str, overrides: &[&str]| {
        let init_from = format!("model.init_from={}", directory.path().display());
        let overrides: Vec<String> =
            overrides.iter().map(|&text| text.to_owned()).chain([init_from]).collect();
        std::fs::write(&file, text).unwrap();
        TrainConfig::load_new(&file, &overrides).unwrap()
    };
    let config = load("", &[]);
    let new = TrainPlan::new(config.clone()).unwrap();
    assert_eq!(new.model(), saved.model());
    initial_model(&new).unwrap();
    // What is written down says it all: it can be read without the model.
    let again = TrainConfig::parse(&config.to_toml(), "config.toml", &[]).unwrap();
    assert_eq!(again, config);
    assert_eq!(config.data.tokenizer, None);

    let config = load("[model]\nblock_counts = 3", &["model.rope_theta=10000"]);
    let new = TrainPlan::new(config).unwrap();
    assert_eq!((new.model().budget.block_counts(), new.model().rope_theta), (3, 10_000.0));
    let message = initial_model(&new).err().unwrap().to_string();
    assert!(message.contains("rope_theta is 10000, the checkpoint has 500000"), "{message}");
    let longer = load("[data]\nsequence_length = 8192", &[]);
    assert_eq!(longer.model.max_position_embeddings, Some(8192));

    std::fs::write(directory.path().join("tokenizer.json"), "{}").unwrap();
    assert_eq!(load("", &[]).data.tokenizer.as_deref(), Some(directory.path()));
    let bytes = load("[data]\ntokenizer = \"bytes\"", &[]).data.tokenizer;
    assert_eq!(bytes.as_deref(), Some(Path::new("bytes")));
}
