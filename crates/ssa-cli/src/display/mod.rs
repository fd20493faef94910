//! What people see: results on standard output, progress on standard error.

mod output;
mod progress;
mod tables;

pub(crate) use output::{print, print_json};
pub(crate) use progress::{BatchProgress, TrainProgress, note};
pub(crate) use tables::render;
