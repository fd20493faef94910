use ssa_kernels::ops::attention::alignment::{AlignmentDirection, AlignmentKind};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{DocumentMasking, Method};

mod data;

use super::*;
use crate::optimizer::DecayedWeights;
use crate::schedule::ScheduleShape;
use crate::{Grid, Unit};

fn plan(overrides: &[&str]) -> Result<TrainPlan, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    TrainPlan::new(TrainConfig::parse("", "run.toml", &overrides).unwrap())
}

#[test]
fn the_default_is_possible() {
    let plan = plan(&[]).unwrap();
    assert_eq!(
        (
            plan.steps(),
            plan.batches().rows(0),
            plan.batches().micro_batch_size,
            plan.batches().micro_batches(0)
        ),
        (200, 8, 8, 1)
    );
    assert_eq!(plan.model().vocab_size, 257);
    assert_eq!(plan.model().eos_token_id, [256]);
    assert_eq!(plan.model().max_position_embeddings, 1024);
    assert_eq!(plan.schedule().warmup, 2);
    assert_eq!(plan.objective().alpha, 10.0);
    assert!(plan.objective().gated_alignment);
}

#[test]
fn settings_reach_the_objective() {
    let plan = plan(&[
        "objective.method=nsa",
        "objective.alpha=3",
        "objective.alignment=mse",
        "objective.alignment_direction=sparse_to_full",
        "objective.alignment_on=ungated",
        "objective.document_masking=full_only",
        "objective.selection=reference",
        "training.recompute=true",
        "training.micro_batch_size=2",
        "optimizer.warmup_steps=7",
        "model.block_size=8",
        "model.block_counts=4",
        "model.window_size=5",
        "evaluation.budgets=[\"8x8\"]",
    ])
    .unwrap();
    let objective = plan.objective();
    let attention = &objective.attention;
    assert_eq!(
        (attention.method, attention.document_masking),
        (Method::NSA, DocumentMasking::FullOnly)
    );
    let selection = attention.selection;
    assert_eq!((selection.budget.to_string().as_str(), attention.window_size), ("8x4", 5));
    assert_eq!(selection.rule, SelectionRule::Reference);
    assert_eq!(objective.alignment.kind, AlignmentKind::Mse);
    assert_eq!(objective.alignment.direction, AlignmentDirection::SparseToFull);
    assert!(objective.recompute && !objective.gated_alignment);
    assert_eq!(
        (plan.batches().micro_batches(0), plan.schedule().warmup, objective.alpha),
        (4, 7, 3.0)
    );
}

#[test]
fn impossible_values_say_what_would_work() {
    for (overrides, expected) in [
        (&["run.name=a/b"][..], "`run.name` is \"a/b\", expected letters, digits"),
        (&["run.name="], "`run.name` is \"\", expected letters"),
        (
            &["model.num_attention_heads=6", "model.num_key_value_heads=4"],
            "`model.num_attention_heads` is 6, expected a multiple of num_key_value_heads (4)",
        ),
        (&["model.head_dim=33"], "`model.head_dim` is 33, expected an even number"),
        (&["model.block_counts=0"], "`model.block_counts` is 0, expected at least 1"),
        (&["model.block_size=0"], "`model.block_size` is 0, expected at least 1"),
        (&["model.num_hidden_layers=0"], "`model.num_hidden_layers` is 0, expected at least 1"),
        (
            &["model.rope_scaling.factor=0.5"],
            "`model.rope_scaling.factor` is 0.5, expected a number of at least 1",
        ),
        (
            &["objective.method=nsa", "model.window_size=0"],
            "`model.window_size` is 0, expected at least 1",
        ),
        (
            &["objective.selection=reference", "model.block_counts=17"],
            "`model.block_counts` is 17, expected at most block_size (16) with objective.selection \
             = \"reference\"\nhint: change it, or set objective.selection = \"exact\"",
        ),
        (
            &["objective.selection=reference"],
            "`evaluation.budgets` is 16x32, expected block_counts at most block_size (16) with \
             objective.selection = \"reference\"\nhint: change it, or set objective.selection = \
             \"exact\"",
        ),
        (
            &["objective.selection=reference", "model.block_size=12"],
            "`model.block_size` is 12, expected a power of two of at least 2 with \
             objective.selection",
        ),
        (
            &["objective.selection=reference", "model.block_counts=3"],
            "`model.block_counts` is 3, expected a power of two with objective.selection",
        ),
        (
            &["objective.selection=reference", "evaluation.budgets=[\"12x2\"]"],
            "`evaluation.budgets` is 12x2, expected block_size a power of two of at least 2 with",
        ),
        (
            &["training.batch_size=9223372036854775807"],
            "`training.batch_size` is 9223372036854775807, expected at most 1048576",
        ),
        (
            &["training.steps=9223372036854775807"],
            "`training.steps` is 9223372036854775807, expected at most 1099511627776",
        ),
        (
            &["data.sequence_length=16777217"],
            "`data.sequence_length` is 16777217, expected at most 16777216",
        ),
        (
            &["model.intermediate_size=4611686018427387904"],
            "`model.intermediate_size` is 4611686018427387904, expected at most 1048576",
        ),
        (
            &["model.vocab_size=1000000000"],
            "`model.vocab_size` is 1000000000, expected at most 16777216",
        ),
        (
            &["model.num_hidden_layers=1000000000"],
            "`model.num_hidden_layers` is 1000000000, expected at most 4096",
        ),
        (&["data.sequence_length=1"], "`data.sequence_length` is 1, expected at least 2"),
        (
            &["model.max_position_embeddings=512"],
            "`data.sequence_length` is 1024, expected at most model.max_position_embeddings (512)",
        ),
        (
            &["data.held_out_fraction=0"],
            "`data.held_out_fraction` is 0, expected a fraction between 0 and 1",
        ),
        (
            &["data.held_out_fraction=1"],
            "`data.held_out_fraction` is 1, expected a fraction between 0 and 1",
        ),
        (&["objective.alpha=-1"], "`objective.alpha` is -1, expected a non-negative number"),
        (&["objective.alpha=1e39"], "`objective.alpha` is 1000"),
        (
            &["objective.full_ratio=1.1"],
            "`objective.full_ratio` is 1.1, expected a fraction from 0 to 1",
        ),
        (
            &["objective.full_ratio=-0.1"],
            "`objective.full_ratio` is -0.1, expected a fraction from 0 to 1",
        ),
        (&["training.steps=0"], "`training.steps` is 0, expected at least 1"),
        (&["training.batch_size=0"], "`training.batch_size` is 0, expected at least 1"),
        (
            &["training.micro_batch_size=3"],
            "`training.micro_batch_size` is 3, expected a divisor of training.batch_size (8)",
        ),
        (&["training.micro_batch_size=0"], "`training.micro_batch_size` is 0, expected a divisor"),
        (&["training.log_every=0"], "`training.log_every` is 0, expected at least 1"),
        (&["training.max_bad_steps=0"], "`training.max_bad_steps` is 0, expected at least 1"),
        (
            &["checkpoint.every_minutes=-1"],
            "`checkpoint.every_minutes` is -1, expected a number of minutes from 0",
        ),
        (&["checkpoint.keep_last=0"], "`checkpoint.keep_last` is 0, expected at least 1"),
        (
            &["optimizer.learning_rate=-1e-3"],
            "`optimizer.learning_rate` is -0.001, expected a positive number",
        ),
        (
            &["optimizer.learning_rate=0"],
            "`optimizer.learning_rate` is 0, expected a positive number",
        ),
        (
            &["optimizer.min_learning_rate=1"],
            "`optimizer.min_learning_rate` is 1, expected a number from 0 to \
             optimizer.learning_rate (0.001)",
        ),
        (
            &["optimizer.warmup_steps=201"],
            "`optimizer.warmup_steps` is 201, expected at most training.steps (200)\nhint: pass \
             --set optimizer.warmup_steps=20 or so, or train longer",
        ),
        (
            &["optimizer.warmup_fraction=2"],
            "`optimizer.warmup_fraction` is 2, expected a fraction from 0 to 1",
        ),
        (
            &["optimizer.beta1=1"],
            "`optimizer.beta1` is 1, expected a number from 0 to 1, 1 excluded",
        ),
        (
            &["optimizer.beta2=0.99999999999"],
            "`optimizer.beta2` is 0.99999999999, expected a number from 0 to 1",
        ),
        (&["optimizer.eps=0"], "`optimizer.eps` is 0, expected a positive number"),
        (
            &["optimizer.weight_decay=-1"],
            "`optimizer.weight_decay` is -1, expected a non-negative number",
        ),
        (
            &["optimizer.max_grad_norm=0"],
            "`optimizer.max_grad_norm` is 0, expected a positive number",
        ),
        (
            &["evaluation.budgets=[\"16x4\", \"16x4\"]"],
            "`evaluation.budgets` is 16x4 twice, expected each budget once",
        ),
        (&["objective.z_loss=-1"], "`objective.z_loss` is -1, expected a non-negative number"),
        (
            &["training.batch_size_start=9", "training.batch_ramp_steps=4"],
            "`training.batch_size_start` is 9, expected a number from 1 to training.batch_size (8)",
        ),
        (
            &["training.batch_size_start=0"],
            "`training.batch_size_start` is 0, expected a number from 1",
        ),
        (&["training.batch_size_start=4"], "`training.batch_ramp_steps` is 0, expected at least 1"),
        (
            &["training.batch_ramp_steps=4"],
            "`training.batch_ramp_steps` is 4, expected 0 without training.batch_size_start",
        ),
        (
            &["training.batch_size_start=3", "training.batch_ramp_steps=4"],
            "`training.batch_size_start` is 3, expected a divisor of training.batch_size (8)",
        ),
        (
            &[
                "training.batch_size_start=2",
                "training.batch_ramp_steps=4",
                "training.micro_batch_size=4",
            ],
            "`training.micro_batch_size` is 4, expected a divisor of training.batch_size_start (2)",
        ),
        (
            &[
                "optimizer.schedule=wsd",
                "optimizer.warmup_steps=20",
                "optimizer.decay_fraction=0.95",
            ],
            "`optimizer.decay_fraction` is 0.95, expected a fraction of at most the 180 steps \
             after the warm-up",
        ),
        (
            &["optimizer.decay_fraction=2"],
            "`optimizer.decay_fraction` is 2, expected a fraction from 0 to 1",
        ),
        (&["monitoring.probe_tokens=0"], "`monitoring.probe_tokens` is 0, expected at least 1"),
        (
            &["monitoring.validation_tokens=0"],
            "`monitoring.validation_tokens` is 0, expected at least 1",
        ),
        (
            &["objective.method=nsa", "monitoring.best_by=full"],
            "`monitoring.best_by` is full, expected sparse with objective.method = \"nsa\"",
        ),
        (
            &["model.vocab_size=256"],
            "`model.vocab_size` is 256, expected at least 257, the vocabulary of the tokenizer of \
             the data\nhint: prepare",
        ),
        (&["evaluation.tokens=0"], "`evaluation.tokens` is 0, expected at least 1"),
        (&["evaluation.batch_size=0"], "`evaluation.batch_size` is 0, expected at least 1"),
        (
            &["evaluation.analysis_tokens=0"],
            "`evaluation.analysis_tokens` is 0, expected at least 1",
        ),
    ] {
        let message = plan(overrides).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}\nexpected {expected}");
    }
}

#[test]
fn settings_reach_schedule_batches_and_optimizer() {
    let plan = plan(&[
        "optimizer.schedule=wsd",
        "optimizer.decay_fraction=0.1",
        "optimizer.weight_decay_on=layers",
        "training.batch_size_start=2",
        "training.batch_ramp_steps=6",
        "objective.z_loss=1e-4",
    ])
    .unwrap();
    assert_eq!((plan.schedule().shape, plan.schedule().decay), (ScheduleShape::Wsd, 20));
    assert_eq!(plan.optimizer().decayed, DecayedWeights::Layers);
    assert_eq!([0, 2, 5, 6].map(|step| plan.batches().rows(step)), [2, 4, 6, 8]);
    assert_eq!(plan.batches().micro_batch_size, 2);
    assert_eq!(plan.objective().z_loss, 1e-4);
}

#[test]
fn the_best_weights_are_judged_by_what_the_method_is_for() {
    let by = |overrides: &[&str]| plan(overrides).unwrap().best_by();
    assert_eq!(by(&[]), AttentionMode::Sparse);
    assert_eq!(by(&["objective.method=full"]), AttentionMode::Full);
    assert_eq!(by(&["monitoring.best_by=full"]), AttentionMode::Full);
}

#[test]
fn the_full_stream_fraction_follows_from_the_draw() {
    let share = |overrides: &[&str], steps| plan(overrides).unwrap().full_stream_fraction(steps);
    assert_eq!(share(&["objective.method=full"], 0..9), 1.0);
    assert_eq!(share(&["objective.method=moba"], 0..9), 0.0);
    // The first steps of seed 0 are drawn as F F s F.
    assert_eq!([share(&[], 0..4), share(&[], 1..3), share(&[], 3..3)], [0.75, 0.5, 0.0]);
}

#[test]
fn warm_up_by_fraction_follows_the_steps() {
    let warmup = |overrides: &[&str]| plan(overrides).unwrap().schedule().warmup;
    assert_eq!(warmup(&["training.steps=1000"]), 10);
    assert_eq!(warmup(&["training.steps=10"]), 0);
    assert_eq!(warmup(&["training.steps=10", "optimizer.warmup_fraction=1"]), 10);
    assert_eq!(warmup(&["optimizer.warmup_fraction=0.5", "optimizer.warmup_steps=0"]), 0);
}

#[test]
fn every_shipped_configuration_is_possible() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let listed = std::fs::read_to_string(directory.join("README.md")).unwrap();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            match Grid::load(&path, &[]) {
                Ok(grid) => check_units(&grid),
                Err(_) => {
                    TrainPlan::new(TrainConfig::load(&path, &[]).unwrap()).unwrap();
                }
            }
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(listed.contains(name), "configs/README.md does not list {name}");
        }
    }
}

/// Checks that all units of a grid are possible, and that no two runs are the same.
fn check_units(grid: &Grid) {
    let units = grid.units().unwrap();
    assert_eq!(units.len(), grid.runs.len() * grid.seeds.len());
    for (index, unit) in units.iter().enumerate() {
        assert!(unit.plan().unwrap().budgets().contains(&unit.plan().unwrap().model().budget));
        for other in &units[..index] {
            assert_ne!(unit.directory("x".as_ref()), other.directory("x".as_ref()));
            let unnamed = |unit: &Unit| {
                let mut config = unit.config.clone();
                config.run.name.clear();
                config
            };
            assert_ne!(unnamed(unit), unnamed(other), "{}", unit.config.run.name);
        }
    }
}

#[test]
fn the_papers_ablations_ship() {
    let configs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let settings = |name: &str| -> Vec<String> {
        let grid = Grid::load(&configs.join(name), &[]).unwrap();
        grid.runs.into_iter().flat_map(|run| run.settings).collect()
    };
    let methods = settings("compare.toml");
    for method in ["full", "moba", "nsa", "ssa"] {
        assert!(methods.contains(&format!("objective.method=\"{method}\"")), "{method}");
    }
    let ablations = settings("ablations.toml");
    for setting in [
        "objective.alpha=0",
        "objective.alignment_direction=\"full_to_sparse\"",
        "objective.alignment_direction=\"sparse_to_full\"",
        "objective.full_ratio=0",
        "objective.full_ratio=0.25",
        "objective.full_ratio=0.75",
        "objective.full_ratio=1",
        "objective.alpha=5",
        "objective.alpha=20",
        "objective.alignment=\"mse\"",
        "objective.alignment_on=\"ungated\"",
        "objective.stream_draw=\"layer\"",
        "model.block_size=8",
    ] {
        assert!(ablations.contains(&setting.to_owned()), "{setting}");
    }
    // Blocks of all shapes have the receptive field of the base.
    let grid = Grid::load(&configs.join("ablations.toml"), &[]).unwrap();
    let fields: Vec<usize> = grid
        .units()
        .unwrap()
        .iter()
        .map(|unit| unit.plan().unwrap().model().budget.receptive_field())
        .collect();
    assert!(fields.iter().all(|&field| field == fields[0]), "{fields:?}");
}
