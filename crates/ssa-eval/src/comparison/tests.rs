//! Means, spreads and differences against values computed by hand.

use ssa_model::{AttentionMode, Method, SparseBudget};

use super::*;
use crate::report::render_comparison;
use crate::{Analysis, AttentionMeans, BudgetResult, Machine, ModeAttention, Perplexity};

fn result(budget: Option<SparseBudget>, bits_per_byte: f64) -> BudgetResult {
    BudgetResult {
        mode: if budget.is_some() { AttentionMode::Sparse } else { AttentionMode::Full },
        budget,
        receptive_field: budget.map(SparseBudget::receptive_field),
        nats_per_token: bits_per_byte,
        perplexity: 10.0 * bits_per_byte,
        bits_per_byte,
        kl_full_sparse: budget.map(|_| 0.25),
        attention_sparsity: None,
    }
}

/// A summary with bits per byte under full attention and at 16x4.
fn summary(seed: u64, full: f64, sparse: f64) -> Summary {
    let budget: SparseBudget = "16x4".parse().unwrap();
    let states = |mode| ModeAttention {
        mode,
        overall: AttentionMeans { attention_sparsity: 0.5, ..AttentionMeans::default() },
        layers: Vec::new(),
    };
    Summary {
        version: "0.1.0".to_owned(),
        commit: "0123456789ab".to_owned(),
        run: "run".to_owned(),
        command: String::new(),
        started: String::new(),
        machine: Machine { cpu: String::new(), threads: 1 },
        device: "cpu".to_owned(),
        seed,
        data: Vec::new(),
        held_out: Vec::new(),
        method: Method::ALL[0],
        trained_budget: Some(budget),
        parameters: 1000,
        steps: 10,
        train_tokens: 640,
        train_seconds: 1.0,
        tokens_per_second: 640.0,
        baseline_bits_per_byte: None,
        evaluation: Some(Perplexity {
            rows: 1,
            sequence_length: 64,
            targets: 63,
            bytes: 63,
            results: vec![result(None, full), result(Some(budget), sparse)],
        }),
        analysis: Some(Analysis {
            budget,
            tokens: 64,
            hidden_states: vec![states(AttentionMode::Full), states(AttentionMode::Sparse)],
            kl_full_sparse: Some(0.25),
            profiles: Vec::new(),
        }),
        config: serde_json::Value::Null,
    }
}

fn run(name: &str, summaries: Vec<Summary>) -> ComparedRun {
    let settings = vec!["objective.alpha=20".to_owned()];
    ComparedRun { name: name.to_owned(), settings, summaries }
}

fn comparison(same_tokens: bool) -> Comparison {
    let runs = [
        run("a", vec![summary(0, 2.0, 3.0), summary(1, 4.0, 6.0)]),
        run("b", vec![summary(0, 2.5, 3.5), summary(1, 4.25, 5.5)]),
        run("c", vec![summary(1, 1.0, 1.0)]),
        run("d", vec![]),
    ];
    Comparison::new("Comparison x", &runs, same_tokens, vec!["A note.".to_owned()])
}

#[test]
fn cells_are_means_and_sample_deviations() {
    let comparison = comparison(true);
    let table = comparison.table("bits_per_byte").unwrap();
    assert_eq!(table.columns, ["full", "own budget", "16x4"]);
    let spread = table.cell("a", "full").unwrap();
    assert_eq!(spread.mean, 3.0);
    // (1 + 1) / (2 - 1)
    assert_eq!(spread.deviation, Some(2.0_f64.sqrt()));
    assert_eq!(spread.text(4), "3.0000 ±\u{a0}1.4142");
    assert_eq!(table.cell("a", "own budget"), table.cell("a", "16x4"));
    let single = table.cell("c", "full").unwrap();
    assert_eq!((single.mean, single.deviation, single.text(1).as_str()), (1.0, None, "1.0"));
    assert_eq!(table.cell("d", "full"), None);
    assert_eq!(comparison.table("perplexity").unwrap().cell("a", "full").unwrap().mean, 30.0);
    let kl = comparison.table("kl_full_sparse").unwrap();
    assert_eq!(kl.columns, ["own budget", "16x4"], "no column without a value");
    assert!(comparison.table("attention_sparsity").is_none(), "no table without a value");
    let attention = comparison.table("attention").unwrap();
    assert_eq!(attention.cell("b", "sparsity, full").unwrap().mean, 0.5);
}

#[test]
fn differences_are_within_a_seed() {
    let comparison = comparison(true);
    let table = comparison.table("bits_per_byte_difference").unwrap();
    let names: Vec<&str> = table.rows.iter().map(|row| row.run.as_str()).collect();
    assert_eq!(names, ["b", "c", "d"]);
    // 0.5 and 0.25: they spread by less than the values themselves.
    let spread = table.cell("b", "full").unwrap();
    assert_eq!((spread.mean, spread.deviation), (0.375, Some(0.03125_f64.sqrt())));
    // Only seed 1 has both.
    assert_eq!(table.cell("c", "full").unwrap().mean, -3.0);
}

#[test]
fn different_tokenizers_have_bits_per_byte_only() {
    let tables = comparison(false).tables;
    let metrics: Vec<&str> = tables.iter().map(|table| table.metric.as_str()).collect();
    assert_eq!(metrics, ["bits_per_byte", "bits_per_byte_difference"]);
}

#[test]
fn every_format_has_the_same_values() {
    let comparison = comparison(true);
    let text = comparison.to_text(|table| table.to_text(None));
    let page = render_comparison(&comparison, "config = \"<x>\"").unwrap();
    for format in [&text, &comparison.to_markdown(), &page] {
        assert!(format.contains("3.0000 ±\u{a0}1.4142") && format.contains("A note."), "{format}");
    }
    let csv = comparison.to_csv();
    assert!(csv.starts_with("metric,run,column,mean,deviation,seeds\n"), "{csv}");
    assert!(csv.contains("\nbits_per_byte,a,full,3,1.4142135623730951,2\n"), "{csv}");
    assert!(csv.contains("\nbits_per_byte,c,full,1,,1\n"), "{csv}");
    assert!(csv.contains("\nattention,a,\"sparsity, full\",0.5,0,2\n"), "{csv}");
    let json = serde_json::to_value(&comparison).unwrap();
    let cell = &json["tables"][0]["rows"][0]["cells"][0];
    assert_eq!(cell["by_seed"], serde_json::json!({ "0": 2.0, "1": 4.0 }));
    assert!(page.contains("config = &quot;&lt;x&gt;&quot;") && !page.contains("<script"));
    assert_eq!(page.matches("<figure>").count(), 3, "a chart and two columns of intervals");
}

#[test]
fn a_narrow_table_drops_its_last_columns() {
    let comparison = comparison(true);
    let table = comparison.table("bits_per_byte").unwrap().to_table();
    let text = table.to_text(Some(40));
    assert!(text.ends_with("not shown in 40 columns: 16x4"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
}
