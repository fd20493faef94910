//! The tables of a run as text cells: the same for the page, the terminal and documentation.

use crate::{Analysis, AttentionMeans, BudgetResult, ModeAttention, Perplexity};
use ssa_model::SparseBudget;

/// A table of text. The first column is left-aligned, all others hold numbers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Table {
    /// What each column holds.
    pub header: Vec<&'static str>,
    /// The rows from top to bottom.
    pub rows: Vec<Row>,
}

/// A row of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Row {
    /// One cell per column.
    pub cells: Vec<String>,
    /// The row the reader should look at first: the trained budget, the mean of all layers.
    pub emphasis: bool,
}

/// What stands in a cell that has no value.
const NONE: &str = "\u{2013}";

/// Results by mode and budget, the baseline first.
pub fn results_table(
    evaluation: &Perplexity,
    baseline_bits_per_byte: Option<f64>,
    trained: Option<SparseBudget>,
) -> Table {
    let header = vec![
        "mode",
        "budget",
        "receptive field",
        "bits/byte",
        "perplexity",
        "sparsity",
        "KL, nats",
    ];
    let baseline = baseline_bits_per_byte.map(|bits| {
        let mut cells = vec![NONE.to_owned(); header.len()];
        cells[0] = "byte frequencies".to_owned();
        cells[3] = format!("{bits:.4}");
        Row { cells, emphasis: false }
    });
    let results = evaluation.results.iter().map(|result| result_row(result, trained));
    Table { header, rows: baseline.into_iter().chain(results).collect() }
}

fn result_row(result: &BudgetResult, trained: Option<SparseBudget>) -> Row {
    let emphasis = result.budget.is_some() && result.budget == trained;
    let note = if emphasis { " (trained)" } else { "" };
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    Row {
        cells: vec![
            result.mode.to_string(),
            or_none(result.budget.map(|budget| format!("{budget}{note}"))),
            result.receptive_field.map_or_else(|| "all".to_owned(), |tokens| tokens.to_string()),
            format!("{:.4}", result.bits_per_byte),
            format!("{:.3}", result.perplexity),
            or_none(result.attention_sparsity.map(|sparsity| format!("{sparsity:.3}"))),
            or_none(result.kl_full_sparse.map(|kl| format!("{kl:.4}"))),
        ],
        emphasis,
    }
}

/// The layers of an analysis and their mean, under the hidden states of one inference mode.
pub fn layers_table(states: &ModeAttention) -> Table {
    let header = [&["layer"], AttentionMeans::TITLES].concat();
    let layers = states.layers.iter().enumerate();
    let mut rows: Vec<_> =
        layers.map(|(layer, means)| means_row(layer.to_string(), means, false)).collect();
    rows.push(means_row("all".to_owned(), &states.overall, true));
    Table { header, rows }
}

fn means_row(name: String, means: &AttentionMeans, emphasis: bool) -> Row {
    Row { cells: [vec![name], means.cells()].concat(), emphasis }
}

/// What an analysis covered, in a line.
pub fn analysis_caption(analysis: &Analysis) -> String {
    let kl = analysis
        .kl_full_sparse
        .map_or_else(String::new, |kl| format!(", KL(full || sparse) {kl:.4} nats"));
    format!("budget {}, {} tokens{kl}", analysis.budget, analysis.tokens)
}
