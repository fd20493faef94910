//! The table and the page of an evaluation by window length.

use ssa_model::AttentionMode;
use ssa_report::number::{counted, grouped};
use ssa_report::{Axis, Block, Chart, Color, Column, Mark, Page, Row, Section, Spacing, Table};

use super::results::{SlidingPerplexity, SlidingResult};
use super::rope::RopeMethod;
use crate::Result;
use crate::harness::InferenceMode;

/// Colors of the sparse budgets of a chart, next to full attention.
const COLORS: [Color; 3] = [Color::Orange, Color::Teal, Color::Violet];

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
    let mut ropes: Vec<RopeMethod> = Vec::new();
    for result in &perplexity.results {
        if !ropes.contains(&result.rope) {
            ropes.push(result.rope);
        }
    }
    let charts = ropes.iter().flat_map(|&rope| charts(perplexity, rope));
    let blocks = charts.map(|(chart, caption)| Block::figure(chart, caption)).collect();
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

/// The charts of a scaling of RoPE: full attention with up to three budgets each. All have the same
/// axes.
fn charts(perplexity: &SlidingPerplexity, rope: RopeMethod) -> Vec<(Chart, String)> {
    let of_rope = || perplexity.results.iter().filter(move |result| result.rope == rope);
    let mut modes: Vec<InferenceMode> = Vec::new();
    for mode in of_rope().map(SlidingResult::mode) {
        if !modes.contains(&mode) {
            modes.push(mode);
        }
    }
    let (full, sparse): (Vec<_>, Vec<_>) =
        modes.into_iter().partition(|mode| mode.mode == AttentionMode::Full);
    let groups: Vec<&[InferenceMode]> = match sparse.is_empty() {
        true => vec![&[]],
        false => sparse.chunks(COLORS.len()).collect(),
    };
    let caption = format!("RoPE scaling: {rope}. Lower is better; both axes are logarithmic.");
    let chart = |budgets: &&[InferenceMode]| {
        let mut chart = empty_chart(perplexity, rope);
        let full = full.iter().map(|mode| (mode, Color::Blue));
        for (mode, color) in full.chain(budgets.iter().zip(COLORS)) {
            let results: Vec<_> = of_rope().filter(|result| result.mode() == *mode).collect();
            let mut points: Vec<_> =
                results.iter().map(|it| (it.length as f64, it.perplexity)).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            chart.line(color, &points);
            chart.marks(color, results.into_iter().map(mark).collect());
            chart.legend(color, mode.to_string());
        }
        (chart, caption.clone())
    };
    groups.iter().map(chart).collect()
}

fn empty_chart(perplexity: &SlidingPerplexity, rope: RopeMethod) -> Chart {
    let results = &perplexity.results;
    let x = Axis::spanning(
        "window length in tokens",
        Spacing::Log2,
        results.iter().map(|result| result.length as f64),
    );
    let y = Axis::spanning(
        "perplexity",
        Spacing::Log10,
        results.iter().map(|result| result.perplexity),
    );
    let title = format!("Perplexity by window length, RoPE scaling: {rope}");
    Chart::new(title, "A line per attention; lower is better.", x, y)
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
