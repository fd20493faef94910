//! A line of fields that fits the terminal.

/// The separator of fields.
const GAP: &str = "  ";

/// Fields of a line with their rank: low ranks are shown first.
///
/// A field is shown in full or not at all, so that no number is cut.
#[derive(Debug, Default)]
pub(super) struct Line {
    fields: Vec<(u8, String)>,
}

impl Line {
    /// Appends a field.
    pub(super) fn field(mut self, rank: u8, text: impl Into<String>) -> Self {
        self.fields.push((rank, text.into()));
        self
    }

    /// Appends a field if there is one.
    pub(super) fn optional(self, rank: u8, text: Option<String>) -> Self {
        match text {
            Some(text) => self.field(rank, text),
            None => self,
        }
    }

    /// The fields that fit in `width` columns, in order.
    pub(super) fn fit(&self, width: usize) -> String {
        let mut by_rank: Vec<usize> = (0..self.fields.len()).collect();
        by_rank.sort_by_key(|&index| self.fields[index].0);
        let mut shown = Vec::new();
        let mut used = 0;
        for index in by_rank {
            let gap = if shown.is_empty() { 0 } else { GAP.len() };
            let needed = gap + self.fields[index].1.chars().count();
            if used + needed <= width {
                used += needed;
                shown.push(index);
            }
        }
        shown.sort_unstable();
        let shown: Vec<&str> = shown.iter().map(|&index| self.fields[index].1.as_str()).collect();
        shown.join(GAP)
    }
}

/// A bar of `width` columns, filled to a fraction from 0 to 1.
pub(super) fn bar(width: usize, share: f64) -> String {
    // In halves of a column.
    let filled = ((2 * width) as f64 * share.clamp(0.0, 1.0)).round() as usize;
    let (full, half) = (filled / 2, filled % 2);
    let rest = width - full - half;
    ["\u{2501}".repeat(full), "\u{2578}".repeat(half), "\u{2500}".repeat(rest)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_shown_whole_or_not_at_all() {
        let line = Line::default().field(0, "2.3456").field(2, "rate 1e-3").field(1, "(full)");
        assert_eq!(line.fit(80), "2.3456  rate 1e-3  (full)");
        assert_eq!(line.fit(25), "2.3456  rate 1e-3  (full)");
        assert_eq!(line.fit(24), "2.3456  (full)");
        assert_eq!(line.fit(13), "2.3456");
        assert_eq!(line.fit(5), "");
    }

    #[test]
    fn a_short_field_takes_the_place_of_a_long_one() {
        let line = Line::default().field(0, "1.0").field(1, "a long field").field(2, "2.0");
        assert_eq!(line.fit(10), "1.0  2.0");
    }

    #[test]
    fn bars_fill_from_the_left() {
        assert_eq!(bar(4, 0.0), "────");
        assert_eq!(bar(4, 0.5), "━━──");
        assert_eq!(bar(4, 0.625), "━━╸─");
        assert_eq!(bar(4, 1.0), "━━━━");
        assert_eq!(bar(4, f64::NAN), "────");
        assert_eq!(bar(0, 0.5), "");
    }
}
