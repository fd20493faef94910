//! The tables of a comparison as text, Markdown and CSV.

use ssa_report::{Column, NONE, Row, Table};

use super::{Comparison, MetricRow, MetricTable, Spread};

impl MetricTable {
    /// The table with means and spreads as text.
    pub fn to_table(&self) -> Table {
        // On a narrow terminal the last columns go first.
        let column = |(rank, name): (usize, &String)| {
            Column::number(name.clone()).rank(u8::try_from(rank).unwrap_or(u8::MAX))
        };
        let columns = self.columns.iter().enumerate().map(column);
        let columns = [Column::text("run")].into_iter().chain(columns).collect();
        let cell = |cell: &Option<Spread>| {
            cell.as_ref().map_or_else(|| NONE.to_owned(), |spread| spread.text(self.decimals))
        };
        let row = |row: &MetricRow| {
            let name = [row.run.clone()].into_iter();
            Row::new(name.chain(row.cells.iter().map(cell)).collect())
        };
        Table::new(columns, self.rows.iter().map(row))
    }
}

impl Comparison {
    /// All tables and notes for a terminal or a text file; `render` lays out a table.
    pub fn to_text(&self, render: impl Fn(&Table) -> String) -> String {
        let mut text = String::new();
        for table in &self.tables {
            text += &format!("{}\n{}\n\n", table.title, render(&table.to_table()));
        }
        text + &self.notes.iter().map(|note| format!("note: {note}\n")).collect::<String>()
    }

    /// All tables and notes as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("# {}\n", self.title);
        for note in &self.notes {
            text += &format!("\n{note}\n");
        }
        for table in &self.tables {
            let (title, rows) = (&table.title, table.to_table().to_markdown());
            text += &format!("\n## {title}\n\n{}\n\n{rows}", table.description);
        }
        text
    }

    /// All values as CSV, one mean per line. Names of runs, metrics and columns need quotes only if
    /// they contain a comma.
    pub fn to_csv(&self) -> String {
        let quoted = |text: &str| match text.contains(',') {
            true => format!("\"{text}\""),
            false => text.to_owned(),
        };
        let mut text = "metric,run,column,mean,deviation,seeds\n".to_owned();
        for table in &self.tables {
            for row in &table.rows {
                for (column, cell) in table.columns.iter().zip(&row.cells) {
                    let Some(Spread { mean, deviation, by_seed }) = cell else { continue };
                    let deviation = deviation.map_or_else(String::new, |value| value.to_string());
                    let names = [&table.metric, &row.run, column].map(|name| quoted(name));
                    let names = names.join(",");
                    text += &format!("{names},{mean},{deviation},{}\n", by_seed.len());
                }
            }
        }
        text
    }
}
