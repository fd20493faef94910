//! The page of a comparison.

use ssa_model::SparseBudget;
use ssa_report::number::{abbreviated, grouped};
use ssa_report::{
    Axis, Block, Chart, Color, Column, Interval, Intervals, Mark, NONE, Page, Row, Spacing, Table,
    Tile,
};

use super::{note, section};
use crate::Result;
use crate::comparison::{Comparison, FULL, MetricTable, OWN_BUDGET, RunFacts};

/// The lines of a chart; more runs cannot be told apart.
const COLORS: [Color; 4] = [Color::Blue, Color::Orange, Color::Teal, Color::Violet];

/// Renders the page of a comparison. `grid` is the text of its file.
///
/// # Errors
/// [`EvalError::Report`](crate::EvalError::Report) if the page cannot be rendered: a bug.
pub fn render_comparison(comparison: &Comparison, grid: &str) -> Result<String> {
    let mut quality = Vec::new();
    let mut attention = Vec::new();
    for table in &comparison.tables {
        let bits = table.metric == "bits_per_byte";
        let blocks = if table.columns.iter().any(|column| column == FULL || column == OWN_BUDGET) {
            &mut quality
        } else {
            &mut attention
        };
        blocks.push(Block::Subheading { text: table.title.clone() });
        blocks.push(note(table.description.as_str()));
        if bits {
            blocks.extend(budget_chart(comparison, table));
            blocks.extend([FULL, OWN_BUDGET].iter().filter_map(|column| spreads(table, column)));
        }
        blocks.push(Block::Table { table: table.to_table() });
    }
    let notes = comparison.notes.iter().map(|text| note(text.as_str()));
    let runs = notes.chain([Block::Table { table: runs_table(&comparison.runs) }]).collect();
    let mut sections = vec![section("Quality by budget", quality)];
    if !attention.is_empty() {
        sections.push(section("Attention", attention));
    }
    sections.push(section("Runs", runs));
    sections.push(section("Grid", vec![Block::Code { text: grid.trim_end().to_owned() }]));
    let seeds = comparison.runs.iter().map(|run| run.seeds.len()).max().unwrap_or(0);
    let page = Page {
        title: comparison.title.clone(),
        subtitle: format!(
            "{} runs, up to {seeds} seeds each; mean \u{b1} standard deviation over seeds",
            comparison.runs.len()
        ),
        headline: comparison.notes.first().cloned(),
        tiles: TILES.iter().filter_map(|tile| best(comparison, tile)).collect(),
        sections,
    };
    Ok(page.render()?)
}

/// Name, metric, column and unit of each key number: the lowest mean of a run.
const TILES: [(&str, &str, &str, &str); 3] = [
    ("best with full attention", "bits_per_byte", FULL, "bits per byte"),
    ("best at its own budget", "bits_per_byte", OWN_BUDGET, "bits per byte"),
    ("smallest KL at its own budget", "kl_full_sparse", OWN_BUDGET, "nats"),
];

/// A key number with its run.
fn best(comparison: &Comparison, tile: &(&'static str, &str, &str, &str)) -> Option<Tile> {
    let &(name, metric, column, unit) = tile;
    let table = comparison.table(metric)?;
    let of_run = |run: &RunFacts| Some((run.name.clone(), table.cell(&run.name, column)?));
    let cells = comparison.runs.iter().filter_map(of_run);
    let (run, spread) = cells.min_by(|(_, a), (_, b)| a.mean.total_cmp(&b.mean))?;
    let value = format!("{:.4}", spread.mean);
    Some(Tile { name, value, remark: format!("{unit}: {run}") })
}

/// Bits per byte by receptive field, a line per run; `None` if there are too many runs.
fn budget_chart(comparison: &Comparison, table: &MetricTable) -> Option<Block> {
    if comparison.runs.len() > COLORS.len() {
        return None;
    }
    let points = |run: &str| {
        let point = |column: &String| {
            let budget: SparseBudget = column.parse().ok()?;
            let spread = table.cell(run, column)?;
            Some((budget, spread.mean, spread.text(table.decimals)))
        };
        let mut points: Vec<_> = table.columns.iter().filter_map(point).collect();
        points.sort_by_key(|(budget, ..)| (budget.receptive_field(), budget.block_size()));
        points
    };
    let lines: Vec<_> = table.rows.iter().map(|row| (row.run.as_str(), points(&row.run))).collect();
    let full = |run: &str| table.cell(run, FULL).map(|spread| spread.mean);
    let all = || lines.iter().flat_map(|(_, points)| points);
    all().next()?;
    let fields = all().map(|(budget, ..)| budget.receptive_field() as f64);
    let bits = all().map(|point| point.1).chain(table.rows.iter().filter_map(|row| full(&row.run)));
    let mut chart = Chart::new(
        "Bits per byte by receptive field",
        "A line per run; lower is better. Dashed lines are full attention.",
        Axis::spanning("receptive field: maximum tokens a query attends to", Spacing::Log2, fields),
        Axis::spanning("bits per byte", Spacing::Linear, bits),
    );
    for ((run, points), color) in lines.iter().zip(COLORS) {
        let field = |budget: &SparseBudget| budget.receptive_field() as f64;
        let path: Vec<_> = points.iter().map(|(budget, bits, _)| (field(budget), *bits)).collect();
        let mark = |(budget, bits, text): &(SparseBudget, f64, String)| Mark {
            x: field(budget),
            y: *bits,
            tooltip: format!("{run} at {budget}: {text} bits per byte"),
            label: None,
            emphasis: false,
        };
        chart.line(color, &path);
        chart.marks(color, points.iter().map(mark).collect());
        chart.legend(color, *run);
        if let Some(full) = full(run) {
            chart.level(color, full, format!("{run}, full attention"));
        }
    }
    Some(Block::figure(chart, "Lower is better. Dashed lines are full attention."))
}

/// The means of a column with their spreads; `None` without values.
fn spreads(table: &MetricTable, column: &str) -> Option<Block> {
    let interval = |run: &str| {
        let spread = table.cell(run, column)?;
        Some(Interval {
            name: run.to_owned(),
            mean: spread.mean,
            spread: spread.deviation.unwrap_or(0.0),
            value: spread.text(table.decimals),
        })
    };
    let intervals: Vec<_> = table.rows.iter().filter_map(|row| interval(&row.run)).collect();
    if intervals.is_empty() {
        return None;
    }
    let (label, caption) = match column {
        FULL => ("bits per byte with full attention", "Full attention"),
        _ => ("bits per byte with sparse attention", "Sparse attention at the budget of each run"),
    };
    let description = "The mean over seeds of each run with its standard deviation.";
    Some(Block::Intervals {
        intervals: Intervals::new(caption, description, label, intervals),
        caption: format!(
            "{caption}: mean and standard deviation over seeds. Lower is better; the axis does \
             not start at 0."
        ),
    })
}

/// What each run is.
fn runs_table(runs: &[RunFacts]) -> Table {
    let columns = vec![
        Column::text("run"),
        Column::text("method"),
        Column::number("seeds"),
        Column::number("parameters"),
        Column::number("steps"),
        Column::number("tokens"),
        Column::text("settings"),
    ];
    let row = |run: &RunFacts| {
        let first = run.seeds.first();
        let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
        Row::new(vec![
            run.name.clone(),
            or_none(first.map(|seed| seed.method.clone())),
            run.seeds.len().to_string(),
            or_none(first.map(|seed| abbreviated(seed.parameters as f64))),
            or_none(first.map(|seed| grouped(seed.steps))),
            or_none(first.map(|seed| abbreviated(seed.train_tokens as f64))),
            run.settings.join(", "),
        ])
    };
    Table::new(columns, runs.iter().map(row))
}
