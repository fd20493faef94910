//! Tables on the terminal.

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, TableStyle};
use ssa_eval::report::table::Table;

const RULE: LineStyle = LineStyle::none().fill('\u{2500}').junction('\u{2500}');

/// Rules above and below the header and at the end, as in printed tables.
const STYLE: TableStyle =
    TableStyle::new().top_border(RULE).header_separator(RULE).bottom_border(RULE);

/// A table as text: the first column left-aligned, numbers right-aligned, never wider than its
/// content.
pub(crate) fn render(table: &Table) -> String {
    let cells = |cells: &[String]| -> Vec<Cell> {
        let alignment =
            |column| if column == 0 { CellAlignment::Left } else { CellAlignment::Right };
        let cell =
            |(column, text): (usize, &String)| Cell::new(text).set_alignment(alignment(column));
        cells.iter().enumerate().map(cell).collect()
    };
    let header: Vec<String> = table.header.iter().map(|&name| name.to_owned()).collect();
    let mut out = comfy_table::Table::new();
    out.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
    out.set_header(cells(&header));
    for row in &table.rows {
        out.add_row(cells(&row.cells));
    }
    out.trim_fmt()
}
