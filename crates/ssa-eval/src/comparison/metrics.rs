//! The tables of a comparison. A metric is one entry of a table below.

use std::collections::BTreeMap;

use serde::Serialize;
use ssa_model::AttentionMode;

use super::{ComparedRun, FULL, OWN_BUDGET, Spread};
use crate::distinct::distinct;
use crate::{Analysis, AttentionMeans, BudgetResult, Summary};

/// A metric of all runs.
#[derive(Clone, Debug, Serialize)]
pub struct MetricTable {
    /// The name, as in `summary.json`.
    pub metric: String,
    /// The title.
    pub title: String,
    /// What is measured and in which unit.
    pub description: String,
    /// Decimals of the values as text.
    #[serde(skip)]
    pub decimals: usize,
    /// The columns.
    pub columns: Vec<String>,
    /// One row per run.
    pub rows: Vec<MetricRow>,
}

/// A run in a [`MetricTable`].
#[derive(Clone, Debug, Serialize)]
pub struct MetricRow {
    /// The run.
    pub run: String,
    /// One entry per column; `None` without a value.
    pub cells: Vec<Option<Spread>>,
}

/// A metric with a value for full attention and for each budget.
struct ByBudget {
    metric: &'static str,
    title: &'static str,
    description: &'static str,
    decimals: usize,
    /// Whether values of different tokenizers can be compared.
    across_tokenizers: bool,
    value: fn(&BudgetResult) -> Option<f64>,
}

const BY_BUDGET: [ByBudget; 4] = [
    ByBudget {
        metric: "bits_per_byte",
        title: "Bits per byte",
        description: "Bits of all held-out targets over the bytes of their text, for full \
                      attention and for sparse attention by budget. Lower is better.",
        decimals: 4,
        across_tokenizers: true,
        value: |result| Some(result.bits_per_byte),
    },
    ByBudget {
        metric: "perplexity",
        title: "Perplexity",
        description: "Perplexity per token. Lower is better.",
        decimals: 3,
        across_tokenizers: false,
        value: |result| Some(result.perplexity),
    },
    ByBudget {
        metric: "kl_full_sparse",
        title: "KL divergence",
        description: "Mean KL(p_full || p_sparse) of the next-token distributions, in nats per \
                      token.",
        decimals: 4,
        across_tokenizers: false,
        value: |result| result.kl_full_sparse,
    },
    ByBudget {
        metric: "attention_sparsity",
        title: "Attention sparsity",
        description: "Full-attention weight on the selected blocks, under the hidden states of \
                      the column's mode; for full attention on the blocks of the run's own budget.",
        decimals: 4,
        across_tokenizers: false,
        value: |result| result.attention_sparsity,
    },
];

/// A column of the table of attention at the budget of each run.
struct AtOwnBudget {
    column: &'static str,
    value: fn(&Analysis) -> Option<f64>,
}

/// The mean of a statistic under the hidden states of a mode.
fn under(
    analysis: &Analysis,
    mode: AttentionMode,
    value: fn(&AttentionMeans) -> f64,
) -> Option<f64> {
    analysis.under(mode).map(|attention| value(&attention.overall))
}

const AT_OWN_BUDGET: [AtOwnBudget; 7] = [
    AtOwnBudget {
        column: "sparsity, sparse",
        value: |all| under(all, AttentionMode::Sparse, |means| means.attention_sparsity),
    },
    AtOwnBudget {
        column: "sparsity, full",
        value: |all| under(all, AttentionMode::Full, |means| means.attention_sparsity),
    },
    AtOwnBudget {
        column: "entropy, sparse",
        value: |all| under(all, AttentionMode::Sparse, |means| means.entropy_bits),
    },
    AtOwnBudget {
        column: "entropy, full",
        value: |all| under(all, AttentionMode::Full, |means| means.entropy_bits),
    },
    AtOwnBudget {
        column: "distance, sparse",
        value: |all| under(all, AttentionMode::Sparse, |means| means.distance),
    },
    AtOwnBudget {
        column: "distance, full",
        value: |all| under(all, AttentionMode::Full, |means| means.distance),
    },
    AtOwnBudget { column: "KL, nats", value: |all| all.kl_full_sparse },
];

/// All tables that have a value.
pub(super) fn tables(runs: &[ComparedRun], same_tokens: bool) -> Vec<MetricTable> {
    let columns = budget_columns(runs);
    let mut tables = Vec::new();
    for metric in BY_BUDGET.iter().filter(|metric| metric.across_tokenizers || same_tokens) {
        let cell = |summary: &Summary, column: &str| (metric.value)(result(summary, column)?);
        tables.push(MetricTable {
            metric: metric.metric.to_owned(),
            title: metric.title.to_owned(),
            description: metric.description.to_owned(),
            decimals: metric.decimals,
            columns: columns.clone(),
            rows: rows(runs, &columns, cell),
        });
    }
    if let Some(difference) = tables.first().and_then(difference) {
        tables.insert(1, difference);
    }
    if same_tokens {
        tables.push(attention(runs));
    }
    tables.iter_mut().for_each(MetricTable::drop_empty_columns);
    tables.retain(|table| !table.columns.is_empty());
    tables
}

/// Full attention, the budget of each run, and every budget in the order of its first occurrence.
fn budget_columns(runs: &[ComparedRun]) -> Vec<String> {
    let summaries = runs.iter().flat_map(|run| &run.summaries);
    let results = summaries.flat_map(|summary| &summary.evaluation).flat_map(|all| &all.results);
    let budgets = results.filter_map(|result| Some(result.budget?.to_string()));
    distinct([FULL.to_owned(), OWN_BUDGET.to_owned()].into_iter().chain(budgets))
}

/// The results of a column.
fn result<'a>(summary: &'a Summary, column: &str) -> Option<&'a BudgetResult> {
    let evaluation = summary.evaluation.as_ref()?;
    match column {
        FULL => evaluation.full(),
        OWN_BUDGET => evaluation.at(summary.analysis.as_ref()?.budget),
        budget => evaluation.at(budget.parse().ok()?),
    }
}

/// A row per run with the spread of `value` over its seeds in each column.
fn rows(
    runs: &[ComparedRun],
    columns: &[String],
    value: impl Fn(&Summary, &str) -> Option<f64>,
) -> Vec<MetricRow> {
    let cell = |run: &ComparedRun, column: &String| {
        let of_seed = |summary: &Summary| Some((summary.seed, value(summary, column)?));
        Spread::of(run.summaries.iter().filter_map(of_seed).collect())
    };
    let row = |run: &ComparedRun| MetricRow {
        run: run.name.clone(),
        cells: columns.iter().map(|column| cell(run, column)).collect(),
    };
    runs.iter().map(row).collect()
}

/// A table minus its first row, seed by seed: seeds hold out different text, so the difference
/// within a seed varies less than its terms. `None` for a single run.
fn difference(table: &MetricTable) -> Option<MetricTable> {
    let (first, others) = table.rows.split_first().filter(|(_, others)| !others.is_empty())?;
    let cell = |(cell, base): (&Option<Spread>, &Option<Spread>)| {
        let (cell, base) = (cell.as_ref()?, base.as_ref()?);
        let minus = |(seed, value): (&u64, &f64)| Some((*seed, value - base.by_seed.get(seed)?));
        Spread::of(cell.by_seed.iter().filter_map(minus).collect::<BTreeMap<_, _>>())
    };
    let row = |row: &MetricRow| MetricRow {
        run: row.run.clone(),
        cells: row.cells.iter().zip(&first.cells).map(cell).collect(),
    };
    Some(MetricTable {
        metric: format!("{}_difference", table.metric),
        title: format!("{} minus those of {}", table.title, first.run),
        description: format!(
            "Differences from {} with the same seed, which holds out the same text, and their \
             spread. Below 0 is better than {}.",
            first.run, first.run
        ),
        decimals: table.decimals,
        columns: table.columns.clone(),
        rows: others.iter().map(row).collect(),
    })
}

fn attention(runs: &[ComparedRun]) -> MetricTable {
    let columns: Vec<String> = AT_OWN_BUDGET.iter().map(|part| part.column.to_owned()).collect();
    let cell = |summary: &Summary, column: &str| {
        let part = AT_OWN_BUDGET.iter().find(|part| part.column == column)?;
        (part.value)(summary.analysis.as_ref()?)
    };
    MetricTable {
        metric: "attention".to_owned(),
        title: "Attention at the budget of each run".to_owned(),
        description: "Attention sparsity, entropy of full attention in bits, and distance of the \
                      outputs of full and sparse attention, under the hidden states of sparse and \
                      of full inference; KL(p_full || p_sparse)."
            .to_owned(),
        decimals: 4,
        rows: rows(runs, &columns, cell),
        columns,
    }
}

impl MetricTable {
    /// The cell of a run in a column.
    pub fn cell(&self, run: &str, column: &str) -> Option<&Spread> {
        let column = self.columns.iter().position(|name| name == column)?;
        self.rows.iter().find(|row| row.run == run)?.cells[column].as_ref()
    }

    fn drop_empty_columns(&mut self) {
        let has_value = |column: usize| self.rows.iter().any(|row| row.cells[column].is_some());
        let kept: Vec<bool> = (0..self.columns.len()).map(has_value).collect();
        let mut keep = kept.iter();
        self.columns.retain(|_| keep.next().is_some_and(|&kept| kept));
        for row in &mut self.rows {
            let mut keep = kept.iter();
            row.cells.retain(|_| keep.next().is_some_and(|&kept| kept));
        }
    }
}
