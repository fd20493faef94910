//! How results are presented: numbers and tables as text, charts and whole pages as HTML.
//!
//! Plain data in, text out. Nothing here knows what is measured, reads a file or asks for the size
//! of a terminal, and equal data gives equal text.

mod axis;
mod chart;
pub mod number;
mod page;
mod table;

pub use axis::{Axis, Spacing};
pub use chart::{Chart, Color, Mark};
pub use page::{Block, Page, RenderError, Section, Tile};
pub use table::{Column, NONE, Row, Table};
