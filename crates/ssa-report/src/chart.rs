//! Line charts for a page.
//!
//! A chart is data that the page template draws as SVG. `plotters` is not used: it writes fixed
//! colors and pixel positions, while these charts adapt to the width and color scheme of the page
//! and have tooltips and descriptions for screen readers.

use std::fmt::Write;

use serde::Serialize;

use crate::Axis;

/// The color of a series. The style sheet has two variants of each, for light and dark pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// Blue.
    Blue,
    /// Orange.
    Orange,
    /// Teal.
    Teal,
    /// Violet.
    Violet,
}

/// A highlighted point.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Its value on the x axis.
    pub x: f64,
    /// Its value on the y axis.
    pub y: f64,
    /// Shown on hover.
    pub tooltip: String,
    /// Shown above the mark.
    pub label: Option<String>,
    /// Drawn with a ring around it.
    pub emphasis: bool,
}

/// A chart under construction. Points outside the axes are skipped.
#[derive(Clone, Debug, Serialize)]
pub struct Chart {
    title: String,
    description: String,
    x_label: String,
    y_label: String,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    legend: Vec<Entry>,
    levels: Vec<Level>,
    paths: Vec<Path>,
    marks: Vec<PlacedMark>,
    #[serde(skip)]
    x: Axis,
    #[serde(skip)]
    y: Axis,
}

/// A labeled position, in percent from the left or from the top.
#[derive(Clone, Debug, Serialize)]
struct Tick {
    at: f64,
    label: String,
}

#[derive(Clone, Debug, Serialize)]
struct Entry {
    color: Color,
    text: String,
    dashed: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Level {
    color: Color,
    y: f64,
}

/// Lines and dots, in thousandths of the plot.
#[derive(Clone, Debug, Serialize)]
struct Path {
    color: Color,
    kind: &'static str,
    data: String,
}

#[derive(Clone, Debug, Serialize)]
struct PlacedMark {
    color: Color,
    x: f64,
    y: f64,
    tooltip: String,
    label: Option<String>,
    emphasis: bool,
}

impl Chart {
    /// Creates an empty chart. Title and description are for screen readers.
    pub fn new(title: impl Into<String>, description: impl Into<String>, x: Axis, y: Axis) -> Self {
        let tick = |at, label| Tick { at: percent(at), label };
        Self {
            title: title.into(),
            description: description.into(),
            x_label: x.label.clone(),
            y_label: y.label.clone(),
            x_ticks: x.ticks().into_iter().map(|(v, label)| tick(x.position(v), label)).collect(),
            y_ticks: y
                .ticks()
                .into_iter()
                .map(|(v, label)| tick(1.0 - y.position(v), label))
                .collect(),
            legend: vec![],
            levels: vec![],
            paths: vec![],
            marks: vec![],
            x,
            y,
        }
    }

    /// Adds an entry to the legend.
    pub fn legend(&mut self, color: Color, text: impl Into<String>) {
        self.legend.push(Entry { color, text: text.into(), dashed: false });
    }

    /// Adds a line through the points. Points outside the axes break it.
    pub fn line(&mut self, color: Color, points: &[(f64, f64)]) {
        let mut data = String::new();
        let mut pen_down = false;
        for &(x, y) in points {
            let place = self.place(x, y);
            if let Some((x, y)) = place {
                let command = if pen_down { 'L' } else { 'M' };
                write!(data, "{command}{:.1} {:.1}", 1e3 * x, 1e3 * y).ok();
            }
            pen_down = place.is_some();
        }
        self.paths.push(Path { color, kind: "line", data });
    }

    /// Adds faint dots, one per point.
    pub fn dots(&mut self, color: Color, points: &[(f64, f64)]) {
        // Zero-length strokes with round caps take a tenth of the bytes of circles.
        let mut data = String::new();
        for (x, y) in points.iter().filter_map(|&(x, y)| self.place(x, y)) {
            write!(data, "M{:.1} {:.1}h0", 1e3 * x, 1e3 * y).ok();
        }
        self.paths.push(Path { color, kind: "dots", data });
    }

    /// Adds marks with tooltips.
    pub fn marks(&mut self, color: Color, marks: Vec<Mark>) {
        for Mark { x, y, tooltip, label, emphasis } in marks {
            if let Some((x, y)) = self.place(x, y) {
                let (x, y) = (percent(x), percent(y));
                self.marks.push(PlacedMark { color, x, y, tooltip, label, emphasis });
            }
        }
    }

    /// Adds a dashed line across the chart at `y`, named in the legend.
    pub fn level(&mut self, color: Color, y: f64, text: impl Into<String>) {
        let y = 1.0 - self.y.position(y);
        if y.is_finite() {
            self.levels.push(Level { color, y: percent(y) });
            self.legend.push(Entry { color, text: text.into(), dashed: true });
        }
    }

    /// The position of a point, from 0 to 1 from the left and from the top.
    fn place(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        let (x, y) = (self.x.position(x), 1.0 - self.y.position(y));
        (x.is_finite() && y.is_finite()).then_some((x, y))
    }
}

/// A fraction in percent with two decimals, a tenth of a pixel on a wide page.
fn percent(share: f64) -> f64 {
    (1e4 * share).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spacing;

    fn chart() -> Chart {
        let x = Axis::tight("step", 0.0, 10.0);
        let y = Axis::spanning("loss", Spacing::Linear, [0.0, 1.0].into_iter());
        Chart::new("title", "description", x, y)
    }

    #[test]
    fn points_that_cannot_be_drawn_break_the_line() {
        let mut chart = chart();
        chart.line(Color::Blue, &[(0.0, 1.0), (1.0, f64::NAN), (2.0, 0.5), (3.0, 0.2)]);
        chart.dots(Color::Blue, &[(1.0, f64::NAN), (2.0, 0.5)]);
        chart.level(Color::Blue, f64::NAN, "nothing");
        assert_eq!(chart.paths[0].data.matches('M').count(), 2);
        assert_eq!(chart.paths[1].data.matches('M').count(), 1);
        assert!(!chart.paths[0].data.contains("NaN") && chart.levels.is_empty());
        assert!(chart.legend.is_empty());
    }

    #[test]
    fn points_are_placed_from_the_top_left() {
        let mut chart = chart();
        let mark = |x, y| Mark { x, y, tooltip: String::new(), label: None, emphasis: false };
        chart.marks(Color::Blue, vec![mark(0.0, 1.0), mark(10.0, 0.0), mark(f64::NAN, 0.0)]);
        let places: Vec<_> = chart.marks.iter().map(|mark| (mark.x, mark.y)).collect();
        assert_eq!(places, [(0.0, 5.36), (100.0, 94.64)]);
        assert_eq!(chart.x_ticks[0].at, 0.0);
        assert_eq!(chart.y_ticks[0].at, 94.64);
    }
}
