//! The page as a whole.

use ssa_model::{AttentionMode, Method, SparseBudget};

use super::table::{layers_table, results_table};
use super::{StepPoint, render};
use crate::{Analysis, AttentionMeans, BudgetResult, Machine, ModeAttention, Perplexity, Summary};

fn result(budget: Option<&str>, bits_per_byte: f64, kl: Option<f64>) -> BudgetResult {
    let budget: Option<SparseBudget> = budget.map(|budget| budget.parse().unwrap());
    let nats_per_token = bits_per_byte * std::f64::consts::LN_2;
    BudgetResult {
        mode: if budget.is_some() { AttentionMode::Sparse } else { AttentionMode::Full },
        budget,
        receptive_field: budget.map(SparseBudget::receptive_field),
        nats_per_token,
        perplexity: nats_per_token.exp(),
        bits_per_byte,
        kl_full_sparse: kl,
        attention_sparsity: Some(0.926),
    }
}

fn layer(attention_sparsity: f64) -> AttentionMeans {
    AttentionMeans {
        attention_sparsity,
        entropy_bits: 3.15,
        dropped_mass: 1.0 - attention_sparsity,
        distance: 0.021,
        bound: 0.093,
        bound_tightness: 0.226,
        bound_holds: 1.0,
        max_violation: 2e-7,
        identity_error: 1e-7,
    }
}

fn states(mode: AttentionMode, sparsities: &[f64]) -> ModeAttention {
    let mean = sparsities.iter().sum::<f64>() / sparsities.len() as f64;
    ModeAttention {
        mode,
        overall: layer(mean),
        layers: sparsities.iter().map(|&value| layer(value)).collect(),
    }
}

fn summary() -> Summary {
    let trained = "16x4".parse().unwrap();
    let results = vec![
        result(None, 1.6118, None),
        result(Some("16x1"), 2.0519, Some(0.31)),
        result(Some("16x2"), 1.6445, Some(0.021)),
        result(Some("16x4"), 1.6198, Some(0.0034)),
        result(Some("16x8"), 1.6145, Some(0.0011)),
        result(Some("16x16"), 1.6128, Some(0.0004)),
    ];
    Summary {
        version: "0.1.0".to_owned(),
        commit: "0123456789ab".to_owned(),
        started: "2026-11-23T18:00:00Z".to_owned(),
        machine: Machine { cpu: "Some CPU".to_owned(), threads: 2 },
        method: Method::SSA,
        trained_budget: Some(trained),
        run: "demo".to_owned(),
        command: "ssa train configs/demo.toml".to_owned(),
        device: "cpu".to_owned(),
        seed: 7,
        data: vec!["built-in text".to_owned()],
        held_out: vec!["held-out part of built-in text".to_owned()],
        parameters: 1_234_567,
        steps: 300,
        train_tokens: 2_457_600,
        train_seconds: 125.0,
        tokens_per_second: 19_660.8,
        baseline_bits_per_byte: Some(4.761),
        evaluation: Some(Perplexity {
            rows: 16,
            sequence_length: 512,
            targets: 8_190,
            bytes: 8_188,
            results,
        }),
        analysis: Some(Analysis {
            budget: trained,
            tokens: 8_192,
            hidden_states: vec![
                states(AttentionMode::Full, &[0.91, 0.88, 0.95, 0.93]),
                states(AttentionMode::Sparse, &[0.91, 0.87, 0.95, 0.94]),
            ],
            kl_full_sparse: Some(0.0034),
            profiles: Vec::new(),
        }),
        config: serde_json::json!({}),
    }
}

fn steps(count: u64) -> Vec<StepPoint> {
    // A falling curve with a deterministic variation.
    let wobble = |step: u64| (step as f64 * 12.9898).sin() * 0.12;
    (1..=count)
        .map(|step| StepPoint {
            step,
            stream: Some(if step * 7 % 13 < 6 {
                AttentionMode::Full
            } else {
                AttentionMode::Sparse
            }),
            cross_entropy: 1.7 + 3.8 * (-(step as f64) / 60.0).exp() + wobble(step),
            alignment_loss: Some(0.02 / (1.0 + step as f64 / 50.0) * (1.0 + wobble(step))),
        })
        .collect()
}

#[test]
fn the_page_is_complete_and_self_contained() {
    let page = render(&summary(), &steps(300), "[model]\nname = \"<script>\"").unwrap();
    // To view the page: SSA_REPORT_PREVIEW=/tmp/report.html cargo test -p ssa-eval
    if let Some(path) = std::env::var_os("SSA_REPORT_PREVIEW") {
        std::fs::write(path, &page).unwrap();
    }
    for text in
        ["Quality by budget", "Training", "What sparse attention drops", "16x4 (trained)", "4.7610"]
    {
        assert!(page.contains(text), "{text} is missing");
    }
    assert_eq!(page.matches("<svg role=\"img\"").count(), 4);
    for outside in ["<script", "<link", "src=", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside} must not occur");
    }
    assert!(page.contains("name = &quot;&lt;script&gt;"), "the configuration is escaped");
    assert!(!page.contains("NaN"));
}

#[test]
fn a_run_without_evaluation_still_has_a_page() {
    let summary =
        Summary { baseline_bits_per_byte: None, evaluation: None, analysis: None, ..summary() };
    let page = render(&summary, &[], "").unwrap();
    assert!(
        page.contains("Provenance")
            && !page.contains("<svg")
            && !page.contains("Quality by budget")
    );
}

#[test]
fn a_method_without_full_attention_has_no_comparison() {
    let mut summary = Summary { method: Method::NSA, ..summary() };
    let evaluation = summary.evaluation.as_mut().unwrap();
    evaluation.results.remove(0);
    evaluation.results.iter_mut().for_each(|result| result.kl_full_sparse = None);
    summary.analysis.as_mut().unwrap().hidden_states.remove(0);
    let page = render(&summary, &steps(10), "").unwrap();
    assert!(
        page.contains("the model needs 1.6198 bits per byte") && !page.contains("instead of all")
    );
}

#[test]
fn tables_have_one_cell_per_column() {
    let summary = summary();
    let evaluation = summary.evaluation.as_ref().unwrap();
    let results = results_table(evaluation, summary.baseline_bits_per_byte, summary.trained_budget);
    assert_eq!(results.rows().len(), 7);
    let layers = layers_table(&summary.analysis.as_ref().unwrap().hidden_states[0]);
    assert_eq!(layers.rows().len(), 5);
    for table in [results, layers] {
        assert!(table.rows().iter().all(|row| row.cells().len() == table.columns().len()));
        assert_eq!(table.rows().iter().filter(|row| row.is_emphasized()).count(), 1);
    }
}

#[test]
fn a_summary_survives_json() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("summary.json");
    summary().write(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary());
    assert!(
        summary()
            .write(&directory.path().join("absent/summary.json"))
            .unwrap_err()
            .to_string()
            .contains("absent")
    );
}
