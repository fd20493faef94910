use ssa_model::SparseBudget;

use super::*;

fn error(text: &str, overrides: &[&str]) -> String {
    TrainConfig::parse(text, "run.toml", &owned(overrides)).unwrap_err().to_string()
}

fn owned(overrides: &[&str]) -> Vec<String> {
    overrides.iter().map(|&text| text.to_owned()).collect()
}

fn read(text: &str, overrides: &[&str]) -> TrainConfig {
    TrainConfig::parse(text, "run.toml", &owned(overrides)).unwrap()
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(read("", &[]), TrainConfig::default());
    assert_eq!(read("[training]\n", &[]), TrainConfig::default());
}

#[test]
fn written_configurations_read_back() {
    let every_kind = read(
        "[model]\ninit_from = \"a \\\"b\\\"\"\nrope_theta = 1e6\n[model.rope_scaling]\nfactor = 8\n\
         [objective]\nmethod = \"nsa\"\nalignment_direction = \"full_to_sparse\"\n\
          selection = \"reference\"\n\
         [training]\nmicro_batch_size = 2\nrecompute = true\n[evaluation]\nbudgets = []\n\
          [data]\npaths = [\"x\"]",
        &[],
    );
    for config in [TrainConfig::default(), every_kind] {
        let text = config.to_toml();
        assert_eq!(read(&text, &[]), config, "{text}");
    }
}

#[test]
fn a_written_configuration_has_every_key_with_a_default() {
    let text = TrainConfig::default().to_toml();
    for key in TrainConfig::keys().iter().filter(|key| !key.name.contains("rope_scaling")) {
        let (section, field) = key.name.rsplit_once('.').unwrap_or(("", &key.name));
        let table: toml::Table = text.parse().unwrap();
        match (&key.expected, &key.default) {
            (None, _) => assert!(table[field].is_table(), "{}", key.name),
            (Some(_), Some(default)) => {
                assert_eq!(table[section][field].to_string(), *default, "{}", key.name)
            }
            (Some(_), None) => assert!(table[section].get(field).is_none(), "{}", key.name),
        }
    }
}

#[test]
fn integers_are_numbers() {
    assert_eq!(read("[objective]\nalpha = 100", &[]).objective.alpha, 100.0);
}

#[test]
fn every_setting_of_the_papers_ablations_can_be_written() {
    for setting in [
        "method=full",
        "method=moba",
        "method=nsa",
        "method=ssa",
        "alpha=0",
        "full_ratio=1",
        "full_ratio=0.25",
        "alignment=mse",
        "alignment_direction=full_to_sparse",
        "alignment_direction=sparse_to_full",
        "alignment_on=ungated",
        "stream_draw=micro_batch",
        "stream_draw=layer",
        "document_masking=full_only",
        "selection=reference",
    ] {
        assert_ne!(
            read("", &[&format!("objective.{setting}")]),
            read("", &["objective.alpha=3"]),
            "{setting}"
        );
    }
}

#[test]
fn syntax_errors_name_the_line() {
    assert_eq!(
        error("[run]\nname = \"a\"\nseed = = 3\n", &[]),
        "run.toml, line 3, column 8: extra `=`, expected nothing"
    );
    let twice = error("[run]\nseed = 1\nseed = 2\n", &[]);
    assert!(twice.starts_with("run.toml, line 3, column 1: duplicate key"), "{twice}");
}

#[test]
fn unknown_keys_are_pointed_to_the_nearest() {
    for (text, expected) in [
        (
            "[training]\nstpes = 3",
            "run.toml: unknown key `training.stpes`\nhint: did you mean `training.steps`?",
        ),
        (
            "[trainign]\nsteps = 3",
            "run.toml: unknown key `trainign`\nhint: did you mean `training`?",
        ),
        ("steps = 3", "run.toml: unknown key `steps`\nhint: did you mean `training.steps`?"),
        (
            "[training]\nlearning_rate = 3",
            "run.toml: unknown key `training.learning_rate`\nhint: did you mean \
             `optimizer.learning_rate`?",
        ),
        (
            "[model.rope_scaling]\nfactr = 3",
            "run.toml: unknown key `model.rope_scaling.factr`\nhint: did you mean \
             `model.rope_scaling.factor`?",
        ),
        (
            "[run]\nqqq = 3",
            "run.toml: unknown key `run.qqq`\nhint: the keys of [run] are `name`, `seed`; the \
             directory of a run is the flag --run-dir",
        ),
        (
            "[zzz]\nx = 1",
            "run.toml: unknown key `zzz`\nhint: the sections are `run`, `model`, `data`, \
             `objective`, `training`, `optimizer`, `checkpoint`, `evaluation`, `monitoring`",
        ),
    ] {
        assert_eq!(error(text, &[]), expected);
    }
}

#[test]
fn wrong_types_name_key_expected_and_given() {
    for (text, expected) in [
        (
            "[training]\nsteps = \"many\"",
            "run.toml: `training.steps` must be a non-negative integer, but is the string \"many\"",
        ),
        (
            "[training]\nsteps = 1.5",
            "run.toml: `training.steps` must be a non-negative integer, but is the number 1.5",
        ),
        (
            "[run]\nseed = -1",
            "run.toml: `run.seed` must be a non-negative integer, but is the integer -1",
        ),
        (
            "[training]\nrecompute = 1",
            "run.toml: `training.recompute` must be true or false, but is the integer 1",
        ),
        (
            "[optimizer]\nlearning_rate = nan",
            "run.toml: `optimizer.learning_rate` must be a finite number, but is the number nan",
        ),
        (
            "[objective]\nmethod = \"sas\"",
            "run.toml: `objective.method` must be one of \"full\", \"moba\", \"nsa\", \"ssa\", but \
             is the string \"sas\"",
        ),
        (
            "[data]\npaths = \"notes\"",
            "run.toml: `data.paths` must be a list in brackets, each entry a path, written as a \
             string, but is the string \"notes\"",
        ),
        ("training = 3", "run.toml: `training` must be a section, but is the integer 3"),
        (
            "[model]\nhead_dim = { a = 1 }",
            "run.toml: `model.head_dim` must be a non-negative integer, but is a section",
        ),
        (
            "[run]\nname = 1979-05-27",
            "run.toml: `run.name` must be a string, but is the date 1979-05-27",
        ),
    ] {
        assert_eq!(error(text, &[]), expected);
    }
}

#[test]
fn differences_name_keys_and_values() {
    let old = read("[model]\nwindow_size = 7", &[]);
    assert_eq!(old.differences(&old), []);
    let new = read("", &["training.steps=3", "model.rope_scaling.factor=8", "model.window_size=7"]);
    let differences: Vec<String> =
        new.differences(&old).iter().map(Difference::to_string).collect();
    assert_eq!(differences[1], "model.rope_scaling.factor is 8.0, was absent");
    assert_eq!(differences[8], "training.steps is 3, was 200");
    assert_eq!(differences.len(), 9, "{differences:?}");
    TrainConfig::check_keys(&["training.steps".to_owned()], "--allow-change").unwrap();
    let message = TrainConfig::check_keys(&["training.stpes".to_owned()], "--allow-change")
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "--allow-change training.stpes: unknown key `training.stpes`\nhint: did you mean \
         `training.steps`?"
    );
}

#[test]
fn corpora_are_paths_with_or_without_a_weight() {
    let text = "[data]\ncorpora = [\"a\", { path = \"b\", weight = 0.5 }, { path = \"c\" }]";
    let config = read(text, &[]);
    let corpora =
        config.data.corpora.iter().map(|corpus| (corpus.path.to_str().unwrap(), corpus.weight));
    assert_eq!(corpora.collect::<Vec<_>>(), [("a", 1.0), ("b", 0.5), ("c", 1.0)]);
    assert_eq!(read(&config.to_toml(), &[]), config);
    let set = read("", &["data.corpora=[{ path = \"x\", weight = 2 }]"]);
    assert_eq!(set.data.corpora[0].weight, 2.0);
    for bad in
        ["{ weight = 1 }", "{ path = \"a\", wieght = 1 }", "{ path = \"a\", weight = 0 }", "3"]
    {
        let message = error(&format!("[data]\ncorpora = [{bad}]"), &[]);
        assert!(message.contains("each entry a path, or { path ="), "{message}");
    }
}

#[test]
fn budgets_are_written_size_by_count() {
    for list in ["[\"16x4\", \"64x1\"]", "\"16x4,64x1\"", "\"16x4, 64x1\""] {
        let config = read(&format!("[evaluation]\nbudgets = {list}"), &[]);
        let budgets = config.evaluation.budgets.iter().map(SparseBudget::to_string);
        assert_eq!(budgets.collect::<Vec<_>>(), ["16x4", "64x1"], "{list}");
    }
    assert_eq!(read("", &["evaluation.budgets=16x4"]).evaluation.budgets.len(), 1);
    for bad in ["16", "16x", "x4", "16X4", "0x4", "16x0", "16x4x2", "-1x2", " 16x4"] {
        let message = error(&format!("[evaluation]\nbudgets = [\"{bad}\"]"), &[]);
        assert!(message.contains("each entry a budget such as \"16x4\""), "{message}");
    }
}

#[test]
fn overrides_win_over_the_file_and_the_last_over_the_first() {
    let config = read(
        "[training]\nsteps = 3\nbatch_size = 4",
        &[
            "training.steps=5",
            "training.steps = 7",
            "optimizer.learning_rate=3e-4",
            "objective.method=moba",
            "run.name=\"quoted\"",
            "data.paths=[\"a\", \"b=c\"]",
            "model.init_from=runs/a b=c",
            "model.rope_scaling.factor=8",
        ],
    );
    assert_eq!((config.training.steps, config.training.batch_size), (7, 4));
    assert_eq!((config.optimizer.learning_rate, config.run.name.as_str()), (3e-4, "quoted"));
    assert_eq!(config.data.paths.len(), 2);
    assert_eq!(config.model.init_from.unwrap().display().to_string(), "runs/a b=c");
    assert_eq!(config.model.rope_scaling.unwrap().factor, 8.0);
}

#[test]
fn wrong_overrides_name_the_flag() {
    for (text, expected) in [
        (
            "training.stpes=3",
            "--set training.stpes=3: unknown key `training.stpes`\nhint: did you mean \
             `training.steps`?",
        ),
        ("steps=3", "--set steps=3: unknown key `steps`\nhint: did you mean `training.steps`?"),
        (
            "training.steps=many",
            "--set training.steps=many: `training.steps` must be a non-negative integer, but is \
             the string \"many\"",
        ),
        ("training=3", "--set training=3: `training` must be a section, but is the integer 3"),
        (
            "training.steps.x=3",
            "--set training.steps.x=3: `training.steps` must be a non-negative integer, but is a \
             section",
        ),
        (
            "training.steps",
            "--set training.steps: expected key=value with a dotted key\nhint: for example --set \
             training.steps=100",
        ),
        (
            "=3",
            "--set =3: expected key=value with a dotted key\nhint: for example --set \
             training.steps=100",
        ),
        (
            "training..steps=3",
            "--set training..steps=3: expected key=value with a dotted key\nhint: for \
             example --set training.steps=100",
        ),
    ] {
        assert_eq!(error("", &[text]), expected);
    }
    // A value cannot smuggle in a second key.
    let smuggled = error("", &["training.steps=3\nbatch_size=9"]);
    assert!(smuggled.contains("must be a non-negative integer"), "{smuggled}");
}

#[test]
fn names_of_other_programs_are_understood() {
    for (unknown, key) in [
        ("lr", "optimizer.learning_rate"),
        ("training.epochs", "training.steps"),
        ("model.n_layer", "model.num_hidden_layers"),
        ("budget", "evaluation.budgets"),
        ("batch_size", "training.batch_size"),
    ] {
        let message = error("", &[&format!("{unknown}=1")]);
        assert!(message.contains(&format!("hint: did you mean `{key}`?")), "{message}");
        assert_eq!(TrainConfig::key_named(unknown).as_deref(), Some(key));
    }
    assert_eq!(TrainConfig::key_named("model"), None, "a section is not a setting");
    let keys = TrainConfig::keys();
    for (_, key) in schema::OTHER_NAMES {
        assert!(keys.iter().any(|known| known.name == key), "{key} does not exist");
    }
}

#[test]
fn a_mistake_in_the_file_is_not_covered_by_an_override() {
    let message = error("[training]\nsteps = \"x\"", &["training.steps=3"]);
    assert!(message.starts_with("run.toml: `training.steps`"), "{message}");
}

#[test]
fn a_missing_file_is_named() {
    let message = TrainConfig::load(Path::new("no/such.toml"), &[]).unwrap_err().to_string();
    assert!(message.starts_with("cannot read the configuration no/such.toml: "), "{message}");
}

#[test]
fn every_key_is_documented() {
    for key in TrainConfig::keys() {
        assert!(key.doc.len() > 10 && key.doc.ends_with('.'), "{}: {:?}", key.name, key.doc);
        assert!(!key.doc.contains('|'), "{}: a table cell", key.name);
    }
}

/// `SSA_UPDATE_DOCS=1 cargo test -p ssa-train` rewrites the page.
#[test]
fn the_reference_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/config.md");
    if std::env::var_os("SSA_UPDATE_DOCS").is_some() {
        std::fs::write(&path, reference_page()).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(
        page == reference_page(),
        "docs/reference/config.md is out of date: run with SSA_UPDATE_DOCS=1"
    );
}
