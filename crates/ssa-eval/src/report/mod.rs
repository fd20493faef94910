//! The content of the report of a run and of a comparison; `ssa-report` renders it.

mod budgets;
mod comparison;
mod curves;
mod facts;
mod layers;
pub mod table;
#[cfg(test)]
mod tests;

use ssa_model::AttentionMode;
use ssa_report::number::counted;
use ssa_report::{Block, Color, Page, Section};

pub use comparison::render_comparison;
pub use curves::StepPoint;
pub use facts::caption;

use crate::{Analysis, Perplexity, Result, Summary};

/// Renders the page of a run. `steps` are its losses in order, `config_toml` is its resolved
/// configuration.
///
/// # Errors
/// [`EvalError::Report`](crate::EvalError::Report) if the page cannot be rendered: a bug.
pub fn render(summary: &Summary, steps: &[StepPoint], config_toml: &str) -> Result<String> {
    let sections = [
        summary.evaluation.as_ref().map(|evaluation| quality(evaluation, summary)),
        training(steps),
        summary.analysis.as_ref().map(attention),
        Some(section("Provenance", vec![Block::Facts { facts: facts::provenance(summary) }])),
        Some(section(
            "Configuration",
            vec![Block::Code { text: config_toml.trim_end().to_owned() }],
        )),
    ];
    let page = Page {
        title: facts::title(summary),
        subtitle: facts::subtitle(summary),
        headline: facts::headline(summary),
        tiles: facts::tiles(summary),
        sections: sections.into_iter().flatten().collect(),
    };
    Ok(page.render()?)
}

/// Loss and perplexity by budget.
fn quality(evaluation: &Perplexity, summary: &Summary) -> Section {
    let (trained, baseline) = (summary.trained_budget, summary.baseline_bits_per_byte);
    let mut blocks = vec![note(format!(
        "Measured on {}. A budget of 16x4 lets every query attend to 4 blocks of 16 tokens: its \
         own and the three whose keys match best.",
        facts::coverage(evaluation)
    ))];
    if let Some(chart) = budgets::budget_chart(evaluation, trained) {
        let baseline = baseline.map_or_else(String::new, |bits| {
            format!(" A byte unigram model needs {bits:.4} bits per byte.")
        });
        let caption = format!("Lower is better; the ring marks the training budget.{baseline}");
        blocks.push(Block::figure(chart, caption));
    }
    blocks.push(Block::Table { table: table::results_table(evaluation, baseline, trained) });
    blocks.push(note(
        "Sparsity is the fraction of the full-attention weight on the selected blocks, for the \
         hidden states of the row's mode (for full attention: the blocks of the training budget). \
         KL is the mean divergence between the next-token distributions of full and sparse \
         attention.",
    ));
    section("Quality by budget", blocks)
}

/// The losses by step. `None` without steps.
fn training(steps: &[StepPoint]) -> Option<Section> {
    let mut blocks = vec![Block::figure(
        curves::cross_entropy_chart(steps)?,
        "Cross-entropy of the training batches. Dots are single steps, lines are means over \
         neighboring steps of the same stream.",
    )];
    if let Some(chart) = curves::alignment_chart(steps) {
        let caption = "Alignment loss on a logarithmic axis: the distance between the outputs of \
                       full and sparse attention, as a mean over layers, tokens, heads and \
                       dimensions.";
        blocks.push(Block::figure(chart, caption));
    }
    Some(section("Training", blocks))
}

/// Full and sparse attention compared layer by layer.
fn attention(analysis: &Analysis) -> Section {
    let mut blocks = vec![
        note(format!(
            "Full and sparse attention compared inside every layer, on {}, at a budget of {}.",
            counted(analysis.tokens, "token"),
            analysis.budget
        )),
        Block::figure(
            layers::sparsity_chart(analysis),
            "The fraction of the full-attention weight on the selected blocks. At 1 nothing is \
             lost.",
        ),
    ];
    for states in &analysis.hidden_states {
        blocks.push(Block::Subheading {
            text: format!("With the hidden states of {} inference", states.mode),
        });
        blocks.push(Block::Table { table: table::layers_table(states) });
    }
    blocks.push(note(
        "Distance is |h_full \u{2212} h_sparse| of a head's outputs; by Theorem 1 it is at most \
         the dropped mass times (largest dropped |v| + |h_sparse|), the bound. The last two \
         columns are rounding errors: the largest excess over the bound, and the error of the \
         identity h_full \u{2212} h_sparse = dropped mass \u{d7} (mean dropped value \u{2212} \
         h_sparse).",
    ));
    section("What sparse attention drops", blocks)
}

fn section(heading: &'static str, blocks: Vec<Block>) -> Section {
    Section { heading, blocks }
}

fn note(text: impl Into<String>) -> Block {
    Block::Note { text: text.into() }
}

/// The color of an attention mode in every chart.
fn mode_color(mode: AttentionMode) -> Color {
    match mode {
        AttentionMode::Full => Color::Blue,
        AttentionMode::Sparse => Color::Orange,
    }
}
