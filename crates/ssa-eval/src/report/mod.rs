//! The report of a run: one HTML page that needs nothing else, and the tables shared with the
//! terminal.

mod budgets;
mod chart;
mod curves;
mod facts;
mod layers;
mod scale;
pub mod table;
#[cfg(test)]
mod tests;

use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};

pub use curves::StepPoint;
pub use facts::caption;

use crate::{Result, Summary};

/// The page, with its style sheet and without script.
const TEMPLATE: &str = include_str!("template.html");

/// Renders the page of a run. `steps` are its losses in order, `config_toml` its resolved
/// configuration.
///
/// The page is self-contained: style and charts are inline, nothing is loaded and no script runs.
///
/// # Errors
/// [`EvalError::Template`](crate::EvalError::Template) if the template does not fit its data: a
/// defect.
pub fn render(summary: &Summary, steps: &[StepPoint], config_toml: &str) -> Result<String> {
    // The name ends in .html: everything that is not marked safe is escaped.
    let mut environment = Environment::new();
    environment.add_template("report.html", TEMPLATE)?;
    let page = context! {
        title => facts::title(summary),
        subtitle => facts::subtitle(summary),
        headline => facts::headline(summary),
        tiles => Serde(facts::tiles(summary)),
        results => results(summary),
        cross_entropy_chart => curves::cross_entropy_chart(steps).map(Value::from_safe_string),
        alignment_chart => curves::alignment_chart(steps).map(Value::from_safe_string),
        attention => attention(summary),
        provenance => Serde(facts::provenance(summary)),
        config => config_toml.trim_end(),
    };
    Ok(environment.get_template("report.html")?.render(page)?)
}

fn results(summary: &Summary) -> Option<Value> {
    let evaluation = summary.evaluation.as_ref()?;
    let chart = budgets::budget_chart(evaluation, summary.trained_budget);
    let table =
        table::results_table(evaluation, summary.baseline_bits_per_byte, summary.trained_budget);
    Some(context! {
        chart => chart.map(Value::from_safe_string),
        table => Serde(table),
        coverage => facts::coverage(evaluation),
        baseline => summary.baseline_bits_per_byte.map(|bits| format!("{bits:.4}")),
    })
}

fn attention(summary: &Summary) -> Option<Value> {
    let analysis = summary.analysis.as_ref()?;
    let tables: Vec<_> = analysis
        .hidden_states
        .iter()
        .map(|states| {
            context! {
                mode => states.mode.to_string(),
                table => Serde(table::layers_table(states)),
            }
        })
        .collect();
    Some(context! {
        budget => analysis.budget.to_string(),
        tokens => scale::thousands(&analysis.tokens.to_string()),
        chart => Value::from_safe_string(layers::sparsity_chart(analysis)),
        tables => tables,
    })
}
