//! A self-contained HTML page: style and charts are inline, without external resources or scripts.

use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};
use serde::Serialize;

use crate::{Chart, Intervals, Table};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");

/// The template does not match its data; only a bug in this crate can cause it.
#[derive(Debug, thiserror::Error)]
#[error("the page cannot be rendered: {0}")]
pub struct RenderError(#[from] minijinja::Error);

/// A page. All text is escaped.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// The title.
    pub title: String,
    /// A line below the title.
    pub subtitle: String,
    /// The main result in one sentence.
    pub headline: Option<String>,
    /// The key numbers.
    pub tiles: Vec<Tile>,
    /// The sections.
    pub sections: Vec<Section>,
}

/// A number with its name and a remark.
#[derive(Clone, Debug, Serialize)]
pub struct Tile {
    /// The name of the number.
    pub name: &'static str,
    /// The number.
    pub value: String,
    /// Its unit or condition.
    pub remark: String,
}

/// A part of a page under a heading.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// The heading.
    pub heading: &'static str,
    /// The content.
    pub blocks: Vec<Block>,
}

/// A piece of a section.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Block {
    /// A paragraph of explanation.
    Note {
        /// The paragraph.
        text: String,
    },
    /// A heading within the section.
    Subheading {
        /// The heading.
        text: String,
    },
    /// A chart with a caption.
    Figure {
        /// The chart.
        chart: Box<Chart>,
        /// The caption.
        caption: String,
    },
    /// Means with their spreads and a caption.
    Intervals {
        /// The means.
        intervals: Intervals,
        /// The caption.
        caption: String,
    },
    /// A table. A table wider than the page scrolls horizontally.
    Table {
        /// The table.
        table: Table,
    },
    /// Names with values.
    Facts {
        /// The names with their values.
        facts: Vec<(&'static str, String)>,
    },
    /// Preformatted text in a fixed-width font.
    Code {
        /// The text.
        text: String,
    },
}

impl Block {
    /// A chart with a caption.
    pub fn figure(chart: Chart, caption: impl Into<String>) -> Self {
        Self::Figure { chart: Box::new(chart), caption: caption.into() }
    }
}

impl Page {
    /// The page as HTML.
    ///
    /// # Errors
    /// [`RenderError`] if the template does not match its data: a bug.
    pub fn render(&self) -> Result<String, RenderError> {
        // With a name ending in .html, everything not marked safe is escaped.
        let mut environment = Environment::new();
        environment.add_template("page.html", TEMPLATE)?;
        let context = context! {
            page => Serde(self),
            style => Value::from_safe_string(STYLE.to_owned()),
        };
        Ok(environment.get_template("page.html")?.render(context)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Axis, Color, Column, Mark, Row, Spacing};

    fn page() -> Page {
        let x = Axis::tight("step", 0.0, 10.0);
        let y = Axis::spanning("loss & more", Spacing::Linear, [0.0, 1.0].into_iter());
        let mut chart = Chart::new("a < b", "falls", x, y);
        chart.line(Color::Blue, &[(0.0, 1.0), (10.0, 0.0)]);
        chart.level(Color::Orange, 0.5, "x & y");
        let label = Some("0.5".to_owned());
        chart.marks(
            Color::Blue,
            vec![Mark { x: 5.0, y: 0.5, tooltip: "<half>".to_owned(), label, emphasis: true }],
        );
        chart.legend(Color::Blue, "all <b>");
        let table = Table::new(
            vec![Column::text("mode"), Column::number("loss")],
            [Row::new(vec!["full".to_owned(), "1 < 2".to_owned()]).emphasized(true)],
        );
        Page {
            title: "A title".to_owned(),
            subtitle: "below it".to_owned(),
            headline: Some("One sentence.".to_owned()),
            tiles: vec![Tile { name: "speed", value: "12".to_owned(), remark: "per s".to_owned() }],
            sections: vec![Section {
                heading: "Section",
                blocks: vec![
                    Block::Note { text: "a note".to_owned() },
                    Block::Subheading { text: "deeper".to_owned() },
                    Block::figure(chart, "what it shows"),
                    Block::Table { table },
                    Block::Facts { facts: vec![("seed", "1".to_owned())] },
                    Block::Code { text: "name = \"<script>\"".to_owned() },
                ],
            }],
        }
    }

    #[test]
    fn every_block_is_drawn_and_escaped() {
        let html = page().render().unwrap();
        for part in [
            "<title>A title</title>",
            "One sentence.",
            "a note",
            "<h3>deeper</h3>",
            "a &lt; b",
            "x &amp; y",
            "loss &amp; more",
            "&lt;half&gt;",
            "all &lt;b&gt;",
            "what it shows",
            "1 &lt; 2",
            "<dt>seed</dt><dd>1</dd>",
            "name = &quot;&lt;script&gt;&quot;",
        ] {
            assert!(html.contains(part), "{part} is missing:\n{html}");
        }
    }

    #[test]
    fn a_page_is_self_contained() {
        let html = page().render().unwrap();
        for outside in ["<script", "<link", "src=", "url(", "@import"] {
            assert!(!html.contains(outside), "{outside} must not occur");
        }
        for element in ["svg", "figure", "table", "section", "dl", "div", "text", "circle"] {
            let opened = html.matches(&format!("<{element}>")).count()
                + html.matches(&format!("<{element} ")).count();
            let closed = html.matches(&format!("</{element}>")).count()
                + html
                    .split(&format!("<{element} "))
                    .skip(1)
                    .filter(|rest| rest.split('>').next().is_some_and(|tag| tag.ends_with('/')))
                    .count();
            assert_eq!(opened, closed, "{element}");
        }
    }
}
