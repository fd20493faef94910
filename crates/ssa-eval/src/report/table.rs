//! The tables of a run, for the page, the terminal and the documentation.

use ssa_model::SparseBudget;
use ssa_report::number::counted;
use ssa_report::{Column, NONE, Row, Table};

use crate::{
    Analysis, AttentionMeans, AttentionProfile, BudgetResult, ContextMeans, DistanceShare,
    MassMeans, MassResult, ModeAttention, Perplexity,
};

/// Results by mode and budget, the baseline first.
pub fn results_table(
    evaluation: &Perplexity,
    baseline_bits_per_byte: Option<f64>,
    trained: Option<SparseBudget>,
) -> Table {
    let columns = vec![
        Column::text("mode"),
        Column::number("budget"),
        Column::number("receptive field").rank(2),
        Column::number("bits/byte"),
        Column::number("perplexity").rank(1),
        Column::number("sparsity").rank(3),
        Column::number("KL, nats").rank(4),
    ];
    let baseline = baseline_bits_per_byte.map(|bits| {
        let mut cells = vec![NONE.to_owned(); columns.len()];
        cells[0] = "byte unigram".to_owned();
        cells[3] = format!("{bits:.4}");
        Row::new(cells)
    });
    let results = evaluation.results.iter().map(|result| result_row(result, trained));
    Table::new(columns, baseline.into_iter().chain(results))
}

fn result_row(result: &BudgetResult, trained: Option<SparseBudget>) -> Row {
    let emphasis = result.budget.is_some() && result.budget == trained;
    let note = if emphasis { " (trained)" } else { "" };
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    Row::new(vec![
        result.mode.to_string(),
        or_none(result.budget.map(|budget| format!("{budget}{note}"))),
        result.receptive_field.map_or_else(|| "all".to_owned(), |tokens| tokens.to_string()),
        format!("{:.4}", result.bits_per_byte),
        format!("{:.3}", result.perplexity),
        or_none(result.attention_sparsity.map(|sparsity| format!("{sparsity:.3}"))),
        or_none(result.kl_full_sparse.map(|kl| format!("{kl:.4}"))),
    ])
    .emphasized(emphasis)
}

/// The layers of an analysis and their mean, for the hidden states of one inference mode.
pub fn layers_table(states: &ModeAttention) -> Table {
    let columns = [Column::text("layer")].into_iter().chain(metric_columns()).collect();
    let layers = states.layers.iter().enumerate();
    let layers = layers.map(|(layer, means)| means_row(layer.to_string(), means));
    let overall = means_row("all".to_owned(), &states.overall).emphasized(true);
    Table::new(columns, layers.chain([overall]))
}

fn metric_columns() -> impl Iterator<Item = Column> {
    let metrics = AttentionMeans::TITLES.iter().enumerate();
    metrics.map(|(rank, title)| Column::number(*title).rank(rank as u8))
}

/// The query heads of every layer.
pub fn heads_table(profile: &AttentionProfile) -> Table {
    let columns = [Column::text("layer"), Column::number("head")];
    let columns = columns.into_iter().chain(metric_columns()).collect();
    let row = |layer: usize, (head, means): (usize, &AttentionMeans)| {
        let names = vec![layer.to_string(), head.to_string()];
        Row::new([names, means.cells()].concat())
    };
    let layers = profile.heads.iter().enumerate();
    let rows = layers
        .flat_map(|(layer, heads)| heads.iter().enumerate().map(move |head| row(layer, head)));
    Table::new(columns, rows)
}

/// Attention by the number of tokens that a query sees.
pub fn context_table(profile: &AttentionProfile) -> Table {
    let columns = [Column::text("context"), Column::number("KL, nats")];
    let columns = columns.into_iter().chain(metric_columns()).collect();
    let row = |context: &ContextMeans| {
        let kl = context.kl_full_sparse.map_or_else(|| NONE.to_owned(), |kl| format!("{kl:.4}"));
        let names = vec![range(context.from, context.to), kl];
        Row::new([names, context.means.cells()].concat())
    };
    Table::new(columns, profile.by_context.iter().map(row))
}

/// How far back selected blocks and full attention are.
pub fn distance_table(profile: &AttentionProfile) -> Table {
    let columns = vec![
        Column::text("blocks back"),
        Column::number("selected"),
        Column::number("attention"),
        Column::number("dropped"),
    ];
    let row = |share: &DistanceShare| {
        let values = [share.selected, share.attention, share.dropped];
        let name = vec![range(share.from, share.to)];
        Row::new([name, values.map(|value| format!("{value:.4}")).to_vec()].concat())
    };
    Table::new(columns, profile.by_distance.iter().map(row))
}

fn range(from: usize, to: usize) -> String {
    if from == to { from.to_string() } else { format!("{from} to {to}") }
}

/// The caption of the table of distances.
pub fn oracle_caption(profile: &AttentionProfile) -> String {
    let Some(oracle) = &profile.oracle else {
        return "no query has more blocks than it may select".to_owned();
    };
    format!(
        "{:.1} % of the selected blocks are among as many with the most attention, which hold \
         {:.4} of it; the selected ones hold {:.4}",
        100.0 * oracle.agreement,
        oracle.oracle_mass,
        oracle.selected_mass
    )
}

fn means_row(name: String, means: &AttentionMeans) -> Row {
    Row::new([vec![name], means.cells()].concat())
}

/// The caption of an analysis.
pub fn analysis_caption(analysis: &Analysis) -> String {
    let kl = analysis
        .kl_full_sparse
        .map_or_else(String::new, |kl| format!(", KL(full || sparse) {kl:.4} nats"));
    format!("budget {}, {}{kl}", analysis.budget, counted(analysis.tokens, "token"))
}

/// Results of budgets by attention mass.
pub fn mass_table(results: &[MassResult]) -> Table {
    let columns = vec![
        Column::text("budget"),
        Column::number("blocks"),
        Column::number("estimated mass").rank(2),
        Column::number("true mass").rank(1),
        Column::number("bits/byte"),
        Column::number("perplexity").rank(3),
        Column::number("KL, nats").rank(4),
    ];
    let rows = results.iter().map(|result| {
        let kl = result.kl_full_sparse.map_or_else(|| NONE.to_owned(), |kl| format!("{kl:.4}"));
        let losses =
            vec![format!("{:.4}", result.bits_per_byte), format!("{:.3}", result.perplexity), kl];
        let budget = vec![result.budget.to_string()];
        Row::new([budget, mass_cells(&result.overall), losses].concat())
    });
    Table::new(columns, rows)
}

/// What a budget by attention mass reads in each layer, and on average.
pub fn mass_layers_table(result: &MassResult) -> Table {
    let columns = vec![
        Column::text("layer"),
        Column::number("blocks"),
        Column::number("estimated mass"),
        Column::number("true mass"),
    ];
    let row = |name: String, means: &MassMeans| Row::new([vec![name], mass_cells(means)].concat());
    let layers = result.layers.iter().enumerate();
    let layers = layers.map(|(layer, means)| row(layer.to_string(), means));
    let overall = row("all".to_owned(), &result.overall).emphasized(true);
    Table::new(columns, layers.chain([overall]))
}

fn mass_cells(means: &MassMeans) -> Vec<String> {
    vec![
        format!("{:.2}", means.blocks_read),
        format!("{:.4}", means.estimated_mass),
        format!("{:.4}", means.true_mass),
    ]
}
