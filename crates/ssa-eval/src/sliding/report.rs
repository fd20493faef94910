//! The table and the page of an evaluation by window length.

use ssa_model::AttentionMode;
use ssa_report::number::{counted, grouped};
use ssa_report::{Axis, Block, Chart, Color, Column, Mark, Page, Row, Section, Spacing, Table};

use super::results::{SlidingPerplexity, SlidingResult};
use super::rope::RopeMethod;
use crate::Result;
use crate::distinct::distinct;
use crate::harness::InferenceMode;

/// Colors of the sparse budgets of a chart, next to full attention.
const COLORS: [Color; 3] = [Color::Orange, Color::Teal, Color::Violet];

const AXES: &str = "Lower is better; both axes are logarithmic.";

/// What a page says besides the results.
#[derive(Clone, Debug)]
pub struct SlidingFacts {
    /// The model.
    pub model: String,
    /// Where the text comes from.
    pub data: String,
    /// Names with values: how the results were made.
    pub provenance: Vec<(&'static str, String)>,
}

/// A row for each scaling of RoPE and attention, a column for each length. `value` is the metric.
pub fn sliding_table(
    perplexity: &SlidingPerplexity,
    value: impl Fn(&SlidingResult) -> String,
) -> Table {
    let lengths = perplexity.lengths.iter().map(|&length| Column::number(grouped(length)));
    let columns = [Column::text("RoPE scaling"), Column::text("attention")].into_iter();
    let rows = perplexity.results.chunks(perplexity.lengths.len().max(1)).map(|of_lengths| {
        let first = &of_lengths[0];
        let mut cells = vec![first.rope.to_string(), first.mode().to_string()];
        cells.extend(of_lengths.iter().map(&value));
        Row::new(cells)
    });
    Table::new(columns.chain(lengths).collect(), rows)
}

/// Renders the page: perplexity by window length as charts and tables.
///
/// # Errors
/// [`EvalError::Report`](crate::EvalError::Report) if the page cannot be rendered: a bug.
pub fn render(perplexity: &SlidingPerplexity, facts: SlidingFacts) -> Result<String> {
    let ropes = distinct(perplexity.results.iter().map(|result| result.rope));
    let charts = ropes.iter().flat_map(|&rope| attention_charts(perplexity, rope));
    let blocks = scalings_chart(perplexity, &ropes).into_iter().chain(charts).collect();
    let subheading = |text: &str| Block::Subheading { text: text.to_owned() };
    let table = |value: fn(&SlidingResult) -> String| Block::Table {
        table: sliding_table(perplexity, value),
    };
    let tables = vec![
        subheading("Perplexity"),
        table(|result| format!("{:.3}", result.perplexity)),
        subheading("Bits per byte"),
        table(|result| format!("{:.4}", result.bits_per_byte)),
    ];
    let page = Page {
        title: format!("Perplexity by context length: {}", facts.model),
        subtitle: extent(perplexity, &facts.data),
        headline: beyond(perplexity),
        tiles: Vec::new(),
        sections: vec![
            Section { heading: "Perplexity by context length", blocks },
            Section { heading: "Tables", blocks: tables },
            Section {
                heading: "Provenance",
                blocks: vec![Block::Facts { facts: facts.provenance }],
            },
        ],
    };
    Ok(page.render()?)
}

/// What was scored.
fn extent(perplexity: &SlidingPerplexity, data: &str) -> String {
    format!(
        "{} in windows of {} lengths with a stride of {}, from {} of {data}",
        counted(perplexity.scored_tokens, "token"),
        perplexity.lengths.len(),
        grouped(perplexity.stride),
        counted(perplexity.documents, "document"),
    )
}

/// Which windows extrapolate.
fn beyond(perplexity: &SlidingPerplexity) -> Option<String> {
    let length = perplexity.context_length;
    perplexity.lengths.iter().any(|&it| it > length).then(|| {
        format!(
            "The model's context has {}: longer windows show how it extrapolates.",
            counted(length, "token")
        )
    })
}

/// A line of a chart.
struct Line<'a> {
    name: String,
    color: Color,
    results: Vec<&'a SlidingResult>,
}

/// The first attention with every scaling of RoPE; `None` for a single one.
fn scalings_chart(perplexity: &SlidingPerplexity, ropes: &[RopeMethod]) -> Option<Block> {
    let first = perplexity.results.first().filter(|_| ropes.len() > 1)?.mode();
    let line = |(&rope, color): (&RopeMethod, Color)| Line {
        name: format!("RoPE scaling: {rope}"),
        color,
        results: perplexity
            .results
            .iter()
            .filter(|result| result.rope == rope && result.mode() == first)
            .collect(),
    };
    let colors = std::iter::once(Color::Blue).chain(COLORS);
    let title = format!("Perplexity by window length, {first} attention");
    let lines = ropes.iter().zip(colors).map(line).collect();
    let caption = format!("Attention: {first}. {AXES}");
    Some(Block::figure(chart(perplexity, title, lines), caption))
}

/// The charts of a scaling of RoPE: full attention with up to three budgets each. All have the same
/// axes.
fn attention_charts(perplexity: &SlidingPerplexity, rope: RopeMethod) -> Vec<Block> {
    let of_rope = || perplexity.results.iter().filter(move |result| result.rope == rope);
    let modes = distinct(of_rope().map(SlidingResult::mode));
    let (full, sparse): (Vec<_>, Vec<_>) =
        modes.into_iter().partition(|mode| mode.mode == AttentionMode::Full);
    let groups: Vec<&[InferenceMode]> = match sparse.is_empty() {
        true => vec![&[]],
        false => sparse.chunks(COLORS.len()).collect(),
    };
    let line = |(mode, color): (&InferenceMode, Color)| Line {
        name: mode.to_string(),
        color,
        results: of_rope().filter(|result| result.mode() == *mode).collect(),
    };
    let figure = |budgets: &&[InferenceMode]| {
        let full = full.iter().map(|mode| (mode, Color::Blue));
        let lines = full.chain(budgets.iter().zip(COLORS)).map(line).collect();
        let title = format!("Perplexity by window length, RoPE scaling: {rope}");
        let caption = format!("RoPE scaling: {rope}. {AXES}");
        Block::figure(chart(perplexity, title, lines), caption)
    };
    groups.iter().map(figure).collect()
}

fn chart(perplexity: &SlidingPerplexity, title: String, lines: Vec<Line<'_>>) -> Chart {
    let all = &perplexity.results;
    let lengths = all.iter().map(|result| result.length as f64);
    let values = all.iter().map(|result| result.perplexity);
    let x = Axis::spanning("window length in tokens", Spacing::Log2, lengths);
    let y = Axis::spanning("perplexity", Spacing::Log10, values);
    let mut chart = Chart::new(title, "Lower is better.", x, y);
    for Line { name, color, results } in lines {
        let point = |result: &&SlidingResult| (result.length as f64, result.perplexity);
        chart.line(color, &results.iter().map(point).collect::<Vec<_>>());
        chart.marks(color, results.into_iter().map(mark).collect());
        chart.legend(color, name);
    }
    chart
}

fn mark(result: &SlidingResult) -> Mark {
    Mark {
        x: result.length as f64,
        y: result.perplexity,
        tooltip: format!(
            "{}, {}: perplexity {:.3}",
            result.mode(),
            counted(result.length, "token"),
            result.perplexity
        ),
        label: None,
        emphasis: false,
    }
}
