//! Lines at the end of a terminal that are redrawn in place.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use terminal_size::{Height, Width, terminal_size_of};

/// Minimum time between two redraws.
const FRAME: Duration = Duration::from_millis(60);

/// The lines drawn last.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// Their widths. A terminal that became narrower wraps them.
    drawn: Vec<usize>,
    last: Option<Instant>,
}

impl Screen {
    /// Redraws lines for the width of the terminal, unless the last redraw was very recent.
    pub(super) fn draw(&mut self, lines: impl FnOnce(usize) -> Vec<String>) {
        if self.last.is_none_or(|last| last.elapsed() >= FRAME) {
            self.draw_now(lines);
        }
    }

    /// Redraws lines unconditionally.
    pub(super) fn draw_now(&mut self, lines: impl FnOnce(usize) -> Vec<String>) {
        let (width, height) = size();
        // Some terminals wrap a line that ends in the last column.
        let lines = lines(width - 1);
        write(&self.replace(width, height, lines));
        self.last = Some(Instant::now());
    }

    /// Replaces the lines with a text; the next redraw goes below it.
    pub(super) fn print(&mut self, text: &str) {
        let (width, height) = size();
        write(&(self.replace(width, height, vec![]) + text + "\n"));
    }

    /// Clears the lines.
    pub(super) fn clear(&mut self) {
        let (width, height) = size();
        write(&self.replace(width, height, vec![]));
    }

    /// The control sequence that replaces the lines drawn last with these, on a terminal of this
    /// size.
    fn replace(&mut self, width: usize, height: usize, mut lines: Vec<String>) -> String {
        let rows: usize = self.drawn.iter().map(|drawn| drawn.div_ceil(width).max(1)).sum();
        // Lines that have scrolled off the screen cannot be replaced.
        let rows = rows.min(height - 1);
        lines.truncate(height - 1);
        let mut text = if rows > 0 { format!("\x1b[{rows}A\r") } else { String::new() };
        for line in &lines {
            text += line;
            // Erase only the rest of each line: some terminals keep text erased from the top as
            // history.
            text += "\x1b[K\n";
        }
        if rows > lines.len() {
            text += "\x1b[J";
        }
        self.drawn = lines.iter().map(|line| visible_width(line)).collect();
        text
    }
}

/// Columns and rows of the terminal, at least 2.
fn size() -> (usize, usize) {
    let (Width(width), Height(height)) =
        terminal_size_of(io::stderr()).unwrap_or((Width(80), Height(24)));
    (usize::from(width).max(2), usize::from(height).max(2))
}

fn write(text: &str) {
    // A failed write of progress is no reason to stop.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// The columns of a line: its characters without color codes.
fn visible_width(line: &str) -> usize {
    let mut parts = line.split("\x1b[");
    let first = parts.next().map_or(0, |text| text.chars().count());
    let rest = parts.map(|part| part.split_once('m').map_or(0, |(_, text)| text.chars().count()));
    first + rest.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(widths: &[usize]) -> Vec<String> {
        widths.iter().map(|&width| "x".repeat(width)).collect()
    }

    #[test]
    fn lines_take_the_place_of_the_last_ones() {
        let mut screen = Screen::default();
        assert_eq!(screen.replace(80, 24, lines(&[2, 1])), "xx\x1b[K\nx\x1b[K\n");
        assert_eq!(screen.replace(80, 24, lines(&[3])), "\x1b[2A\rxxx\x1b[K\n\x1b[J");
        assert_eq!(screen.replace(80, 24, lines(&[1])), "\x1b[1A\rx\x1b[K\n");
        assert_eq!(screen.replace(80, 24, vec![]), "\x1b[1A\r\x1b[J");
        assert_eq!(screen.replace(80, 24, vec![]), "");
    }

    #[test]
    fn nothing_is_left_of_lines_that_a_narrower_terminal_wraps() {
        let mut screen = Screen::default();
        screen.replace(130, 24, lines(&[129, 61, 60, 0]));
        // 129 columns are 3 rows of 60, 61 are 2, 60 are 1, and so is an empty line.
        assert!(screen.replace(60, 24, lines(&[59])).starts_with("\x1b[7A\r"));
        assert!(screen.replace(130, 24, vec![]).starts_with("\x1b[1A\r"));
    }

    #[test]
    fn a_low_terminal_gets_what_fits() {
        let mut screen = Screen::default();
        assert_eq!(screen.replace(80, 3, lines(&[1, 2, 3, 4])), "x\x1b[K\nxx\x1b[K\n");
        assert!(screen.replace(80, 2, lines(&[1])).starts_with("\x1b[1A\r"));
    }

    #[test]
    fn colors_take_no_columns() {
        assert_eq!(visible_width("a \x1b[36m▁▂\x1b[0m b"), 6);
        assert_eq!(visible_width(""), 0);
    }
}
