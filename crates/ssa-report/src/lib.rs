//! Presentation of results: numbers and tables as text, charts and pages as HTML.
//!
//! Plain data in, text out. This crate does not depend on what is measured, reads no files and does
//! not query the terminal; equal data gives equal text.

mod axis;
mod chart;
mod intervals;
pub mod number;
mod page;
mod table;

pub use axis::{Axis, Spacing};
pub use chart::{Chart, Color, Mark};
pub use intervals::{Interval, Intervals};
pub use page::{Block, Page, RenderError, Section, Tile};
pub use table::{Column, NONE, Row, Table};
