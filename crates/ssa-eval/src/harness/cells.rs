//! Results by length and depth.

use ssa_report::number::grouped;
use ssa_report::{Column, NONE, Row, Table};

use super::answers::Answer;
use super::generated::Cell;
use super::prepared::PreparedTask;
use super::request::PreparedDocument;
use super::results::{CellResult, TaskResult};
use crate::distinct::distinct;

/// The documents of a cell with their answers.
struct Group<'a> {
    cell: Cell,
    documents: Vec<(&'a PreparedDocument, &'a Vec<Answer>)>,
}

impl PreparedTask {
    /// The results by cell, in the order of the first documents; none for tasks without cells.
    pub(super) fn cells(&self, answers: &[Vec<Answer>]) -> Vec<CellResult> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for document in self.documents.iter().zip(answers) {
            let Some(cell) = document.0.cell else { continue };
            match groups.iter_mut().find(|group| group.cell == cell) {
                Some(group) => group.documents.push(document),
                None => groups.push(Group { cell, documents: vec![document] }),
            }
        }
        let result = |Group { cell, documents }: Group<'_>| CellResult {
            cell,
            documents: documents.len(),
            truncated: documents.iter().filter(|(document, _)| document.truncated).count(),
            metrics: self.metrics_of(documents.iter().copied()),
        };
        groups.into_iter().map(result).collect()
    }
}

/// For each task with cells, its first metric by attention and depth (rows) and length (columns).
pub fn cells_tables(results: &[TaskResult]) -> Vec<(String, Table)> {
    let with_cells = results.iter().filter(|result| result.cells.len() > 1);
    let tasks = distinct(with_cells.map(|result| result.task.as_str()));
    let of_task = |name| results.iter().filter(move |result| result.task == name);
    let tables = tasks.into_iter().filter_map(|name| {
        let metric = of_task(name).next()?.metrics.first()?.metric;
        Some((format!("{name}: {metric} by length"), table(of_task(name))))
    });
    tables.collect()
}

fn table<'a>(results: impl Iterator<Item = &'a TaskResult>) -> Table {
    let results: Vec<&TaskResult> = results.collect();
    let cells = || results.iter().flat_map(|result| &result.cells).map(|result| result.cell);
    let lengths = distinct(cells().map(|cell| cell.length));
    let depths = distinct(cells().map(|cell| cell.depth));
    let mut columns = vec![Column::text("attention"), Column::number("depth, %")];
    columns.extend(lengths.iter().map(|&length| Column::number(grouped(length))));
    let mut rows = Vec::new();
    for result in &results {
        for &depth in &depths {
            let mut cells = vec![result.mode().to_string()];
            cells.push(depth.map_or_else(|| NONE.to_owned(), |depth| depth.to_string()));
            cells.extend(lengths.iter().map(|&length| shown(result, Cell { length, depth })));
            rows.push(Row::new(cells));
        }
    }
    Table::new(columns, rows)
}

/// The first metric of a cell.
fn shown(result: &TaskResult, cell: Cell) -> String {
    let found = result.cells.iter().find(|found| found.cell == cell);
    let Some((found, metric)) = found.and_then(|it| Some((it, it.metrics.first()?))) else {
        return NONE.to_owned();
    };
    let note = if found.truncated > 0 { " (cut)" } else { "" };
    format!("{:.3}{note}", metric.value)
}
