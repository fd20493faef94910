//! Tables of text cells, for the terminal, the page and Markdown.

use std::borrow::Cow;

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, TableStyle,
};
use serde::Serialize;

/// The text of a cell without a value.
pub const NONE: &str = "\u{2013}";

/// A table. Every row has one cell per column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

/// A column of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    name: Cow<'static, str>,
    /// Left-aligned text, which may wrap, instead of right-aligned numbers.
    text: bool,
    /// If the table does not fit, columns with the highest rank are dropped first.
    rank: u8,
}

/// A row of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    cells: Vec<String>,
    /// Whether the row is emphasized.
    emphasis: bool,
}

impl Column {
    /// A left-aligned column.
    pub fn text(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), text: true, rank: 0 }
    }

    /// A right-aligned column.
    pub fn number(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), text: false, rank: 0 }
    }

    /// Sets the rank. If the table does not fit, columns with the highest rank are dropped first,
    /// and the last of equal rank. Columns of rank 0 always stay.
    #[must_use]
    pub fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }
}

impl Row {
    /// A row of cells.
    pub fn new(cells: Vec<String>) -> Self {
        Self { cells, emphasis: false }
    }

    /// The cells.
    pub fn cells(&self) -> &[String] {
        &self.cells
    }

    /// Whether the row is emphasized.
    pub fn is_emphasized(&self) -> bool {
        self.emphasis
    }

    /// Sets whether the row is emphasized.
    #[must_use]
    pub fn emphasized(self, emphasis: bool) -> Self {
        Self { emphasis, ..self }
    }
}

const RULE: LineStyle = LineStyle::none().fill('\u{2500}').junction('\u{2500}');

/// Rules above and below the header and at the end, as in printed tables.
const STYLE: TableStyle =
    TableStyle::new().top_border(RULE).header_separator(RULE).bottom_border(RULE);

impl Table {
    /// Creates a table. Every row must have one cell per column.
    pub fn new(columns: Vec<Column>, rows: impl IntoIterator<Item = Row>) -> Self {
        Self { columns, rows: rows.into_iter().collect() }
    }

    /// The columns from left to right.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The rows from top to bottom.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Renders the table as text, at most `width` terminal columns wide if given.
    ///
    /// If it does not fit, columns are dropped by [rank](Column::rank) and named below the table.
    /// If that is not enough, the cells of text columns wrap.
    pub fn to_text(&self, width: Option<usize>) -> String {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let mut table = self.layout(&shown);
        let Some(width) = width else { return table.trim_fmt() };
        while text_width(&table) > width {
            let rank = |index: &usize| self.columns[*index].rank;
            match shown.iter().copied().max_by_key(rank).filter(|index| rank(index) > 0) {
                Some(index) => shown.retain(|&kept| kept != index),
                None => {
                    table.set_content_arrangement(ContentArrangement::Dynamic);
                    table.set_width(width.try_into().unwrap_or(u16::MAX));
                    break;
                }
            }
            table = self.layout(&shown);
        }
        let hidden = (0..self.columns.len()).filter(|index| !shown.contains(index));
        let hidden: Vec<&str> = hidden.map(|index| &*self.columns[index].name).collect();
        let note = match hidden.as_slice() {
            [] => String::new(),
            names => format!("\nnot shown in {width} columns: {}", names.join("; ")),
        };
        table.trim_fmt() + &note
    }

    /// Renders the table as Markdown, with all columns.
    pub fn to_markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let escaped = |text: &str| text.replace('|', "\\|");
        let mut text = line(self.columns.iter().map(|column| escaped(&column.name)).collect());
        let rule = |column: &Column| if column.text { "---" } else { "---:" }.to_owned();
        text += &line(self.columns.iter().map(rule).collect());
        for row in &self.rows {
            text += &line(row.cells.iter().map(|cell| escaped(cell)).collect());
        }
        text
    }

    /// The shown columns, each as wide as its content.
    fn layout(&self, shown: &[usize]) -> comfy_table::Table {
        let cell = |index: usize, text: &str| {
            let text_column = self.columns[index].text;
            let alignment = if text_column { CellAlignment::Left } else { CellAlignment::Right };
            Cell::new(text).set_alignment(alignment)
        };
        let mut table = comfy_table::Table::new();
        table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(shown.iter().map(|&index| cell(index, &self.columns[index].name)));
        for row in &self.rows {
            table.add_row(shown.iter().map(|&index| cell(index, &row.cells[index])));
        }
        for (column, &index) in table.column_iter_mut().zip(shown) {
            // With the junction, two spaces between columns.
            column.set_padding((1, 0));
            if !self.columns[index].text {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table
    }
}

/// The width of a table in terminal columns: the length of its rules.
fn text_width(table: &comfy_table::Table) -> usize {
    table.lines().next().map_or(0, |rule| rule.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
        cells.map(str::to_owned).to_vec()
    }

    fn results() -> Table {
        let columns = vec![
            Column::text("mode"),
            Column::number("budget"),
            Column::number("bits/byte"),
            Column::number("perplexity").rank(2),
            Column::number("KL, nats").rank(1),
        ];
        let rows = [
            Row::new(cells(["full", NONE, "1.6118", "3.056", NONE])),
            Row::new(cells(["sparse", "16x4", "1.6198", "3.073", "0.0034"])).emphasized(true),
        ];
        Table::new(columns, rows)
    }

    fn width(text: &str) -> usize {
        text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
    }

    #[test]
    fn a_table_that_fits_is_complete() {
        let rule = "─".repeat(48);
        let expected = [
            &rule,
            " mode    budget  bits/byte  perplexity  KL, nats",
            &rule,
            " full         –     1.6118       3.056         –",
            " sparse    16x4     1.6198       3.073    0.0034",
            &rule,
        ];
        let whole = results().to_text(None);
        assert_eq!(whole.lines().collect::<Vec<_>>(), expected, "{whole}");
        assert_eq!(results().to_text(Some(width(&whole))), whole);
    }

    #[test]
    fn the_least_important_columns_go_first() {
        let whole = width(&results().to_text(None));
        let text = results().to_text(Some(whole - 1));
        assert!(!text.contains("3.056") && text.contains("0.0034"), "{text}");
        assert!(text.ends_with(&format!("not shown in {} columns: perplexity", whole - 1)));
        let text = results().to_text(Some(30));
        assert!(text.ends_with("not shown in 30 columns: perplexity; KL, nats"), "{text}");
        assert!(text.lines().take(6).all(|line| line.chars().count() <= 30), "{text}");
        for width in 10..whole {
            // A number is shown in full or not at all.
            let text = results().to_text(Some(width));
            assert!(text.contains("1.6118") && text.contains("1.6198"), "{width}:\n{text}");
        }
    }

    #[test]
    fn markdown_has_every_column() {
        let table = Table::new(
            vec![Column::text("mode"), Column::number("KL(p||q)")],
            [Row::new(cells(["a|b", "0.5"]))],
        );
        let expected = "| mode | KL(p\\|\\|q) |\n| --- | ---: |\n| a\\|b | 0.5 |\n";
        assert_eq!(table.to_markdown(), expected);
    }

    #[test]
    fn long_text_wraps() {
        let words = "one two three four five six seven eight nine ten";
        let table = Table::new(
            vec![Column::text("key"), Column::text("meaning")],
            [Row::new(cells(["training.steps", words]))],
        );
        let text = table.to_text(Some(40));
        assert!(width(&text) <= 40, "{text}");
        let joined: Vec<&str> = text.split_whitespace().collect();
        assert!(words.split(' ').all(|word| joined.contains(&word)), "{text}");
    }
}
