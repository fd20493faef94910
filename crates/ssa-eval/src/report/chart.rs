//! Line charts as SVG text.
//!
//! The marks carry classes instead of colours, so that the page's style sheet decides them: the
//! same SVG serves a light and a dark page. Every chart has a title and a description for readers
//! that do not see it.

use std::fmt::Write;

use super::scale::Axis;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 52.0;

/// A mark of a scatter or of a labelled line.
pub(super) struct Mark {
    pub(super) x: f64,
    pub(super) y: f64,
    /// Shown on hover.
    pub(super) tooltip: String,
    /// Shown above the mark.
    pub(super) label: Option<String>,
    /// Drawn larger, with a ring.
    pub(super) emphasis: bool,
}

/// A chart under construction. Marks are drawn in the order they are added.
pub(super) struct Chart {
    title: String,
    description: String,
    x: Axis,
    y: Axis,
    body: String,
    legend: Vec<(&'static str, String)>,
}

impl Chart {
    pub(super) fn new(
        title: impl Into<String>,
        description: impl Into<String>,
        x: Axis,
        y: Axis,
    ) -> Self {
        Self {
            title: title.into(),
            description: description.into(),
            x,
            y,
            body: String::new(),
            legend: vec![],
        }
    }

    /// An entry of the legend; `class` names the colour.
    pub(super) fn legend(&mut self, class: &'static str, text: impl Into<String>) {
        self.legend.push((class, text.into()));
    }

    /// A line through the points. Points the axes cannot show break it.
    pub(super) fn line(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut path = String::new();
        let mut pen_down = false;
        for &(x, y) in points {
            match self.place(x, y) {
                Some((px, py)) => {
                    let command = if pen_down { 'L' } else { 'M' };
                    write!(path, "{command}{px:.1} {py:.1}").ok();
                    pen_down = true;
                }
                None => pen_down = false,
            }
        }
        if !path.is_empty() {
            writeln!(self.body, r#"<path class="line {class}" d="{path}"/>"#).ok();
        }
    }

    /// Faint dots, one per point.
    pub(super) fn dots(&mut self, class: &str, points: &[(f64, f64)]) {
        // Zero-length strokes with round caps: a path of dots is a tenth of the bytes of circles.
        let mut path = String::new();
        for &(x, y) in points {
            if let Some((px, py)) = self.place(x, y) {
                write!(path, "M{px:.1} {py:.1}h0").ok();
            }
        }
        if !path.is_empty() {
            writeln!(self.body, r#"<path class="dots {class}" d="{path}"/>"#).ok();
        }
    }

    /// Marks with tooltips.
    pub(super) fn marks(&mut self, class: &str, marks: &[Mark]) {
        for mark in marks {
            let Some((px, py)) = self.place(mark.x, mark.y) else { continue };
            let tooltip = escape(&mark.tooltip);
            if mark.emphasis {
                writeln!(
                    self.body,
                    r#"<circle class="ring {class}" cx="{px:.1}" cy="{py:.1}" r="8"/>"#
                )
                .ok();
            }
            writeln!(
                self.body,
                r#"<circle class="mark {class}" cx="{px:.1}" cy="{py:.1}" r="4"><title>{tooltip}</title></circle>"#
            )
            .ok();
            if let Some(label) = &mark.label {
                let (ly, label) = (py - 13.0, escape(label));
                writeln!(
                    self.body,
                    r#"<text class="value" x="{px:.1}" y="{ly:.1}">{label}</text>"#
                )
                .ok();
            }
        }
    }

    /// A dashed line across the chart at `y`, with a label above its left end.
    pub(super) fn level(&mut self, class: &str, y: f64, label: &str) {
        let (x1, x2) = (LEFT, WIDTH - RIGHT);
        let py = self.place_y(y);
        if !py.is_finite() {
            return;
        }
        let (lx, ly, label) = (x1 + 6.0, py - 6.0, escape(label));
        writeln!(
            self.body,
            r#"<line class="level {class}" x1="{x1}" y1="{py:.1}" x2="{x2}" y2="{py:.1}"/>
<text class="level-label {class}" x="{lx}" y="{ly:.1}">{label}</text>"#
        )
        .ok();
    }

    /// The finished SVG element.
    pub(super) fn finish(self) -> String {
        let (title, description) = (escape(&self.title), escape(&self.description));
        let (frame, legend) = (self.frame(), self.legend_entries());
        format!(
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">
<title>{title}</title>
<desc>{description}</desc>
{frame}{body}{legend}</svg>"#,
            body = self.body
        )
    }

    fn frame(&self) -> String {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let mut out = String::new();
        for (value, label) in self.y.ticks() {
            let py = self.place_y(value);
            let (lx, ly) = (LEFT - 9.0, py + 4.0);
            writeln!(
                out,
                r#"<line class="grid" x1="{LEFT}" y1="{py:.1}" x2="{right}" y2="{py:.1}"/><text class="tick end" x="{lx}" y="{ly:.1}">{label}</text>"#
            )
            .ok();
        }
        for (value, label) in self.x.ticks() {
            let px = self.place_x(value);
            let (tick_end, ly) = (bottom + 5.0, bottom + 19.0);
            writeln!(
                out,
                r#"<line class="axis" x1="{px:.1}" y1="{bottom}" x2="{px:.1}" y2="{tick_end}"/><text class="tick middle" x="{px:.1}" y="{ly}">{label}</text>"#
            )
            .ok();
        }
        let (middle, ly) = ((LEFT + right) / 2.0, HEIGHT - 12.0);
        let (x_label, y_label) = (escape(&self.x.label), escape(&self.y.label));
        writeln!(
            out,
            r#"<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>
<text class="label middle" x="{middle}" y="{ly}">{x_label}</text>
<text class="label" x="0" y="14">{y_label}</text>"#
        )
        .ok();
        out
    }

    /// The legend, right-aligned on the line of the y label.
    fn legend_entries(&self) -> String {
        let mut out = String::new();
        let mut right = WIDTH - RIGHT;
        for (class, text) in self.legend.iter().rev() {
            // Text is not measured here: 6.2 units per character is the mean of the fonts in the
            // style sheet.
            let start = right - 6.2 * text.chars().count() as f64;
            let (swatch_start, swatch_end, text) = (start - 24.0, start - 6.0, escape(text));
            writeln!(
                out,
                r#"<line class="swatch {class}" x1="{swatch_start:.1}" y1="10" x2="{swatch_end:.1}" y2="10"/><text class="label" x="{start:.1}" y="14">{text}</text>"#
            )
            .ok();
            right = swatch_start - 16.0;
        }
        out
    }

    fn place(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        let (px, py) = (self.place_x(x), self.place_y(y));
        (px.is_finite() && py.is_finite()).then_some((px, py))
    }

    fn place_x(&self, x: f64) -> f64 {
        LEFT + self.x.position(x) * (WIDTH - LEFT - RIGHT)
    }

    fn place_y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.position(y) * (HEIGHT - TOP - BOTTOM)
    }
}

/// Text as XML character data.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::scale::Spacing;
    use super::*;

    fn chart() -> Chart {
        let x = Axis::tight("step", 0.0, 10.0);
        let y = Axis::spanning("loss", Spacing::Linear, [0.0, 1.0].into_iter());
        Chart::new("a < b", "falls", x, y)
    }

    #[test]
    fn text_is_escaped_and_elements_are_closed() {
        let mut chart = chart();
        chart.line("full", &[(0.0, 1.0), (10.0, 0.0)]);
        chart.level("full", 0.5, "x & y");
        let svg = chart.finish();
        assert!(svg.contains("a &lt; b") && svg.contains("x &amp; y"));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
    }

    #[test]
    fn what_cannot_be_drawn_breaks_the_line() {
        let mut chart = chart();
        chart.line("full", &[(0.0, 1.0), (1.0, f64::NAN), (2.0, 0.5), (3.0, 0.2)]);
        chart.level("full", f64::NAN, "nothing");
        let svg = chart.finish();
        assert!(!svg.contains("NaN") && !svg.contains("nothing"));
        let path = svg.lines().find(|line| line.contains("class=\"line full\"")).unwrap();
        assert_eq!(path.matches('M').count(), 2);
    }
}
