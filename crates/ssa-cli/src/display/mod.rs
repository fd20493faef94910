//! What people see: results on standard output, progress on standard error.

mod output;
mod progress;
mod tables;
mod train;

pub(crate) use output::{print, print_json};
pub(crate) use progress::{AmountProgress, BatchProgress, Display, amount, note};
pub(crate) use tables::render;
pub(crate) use train::TrainProgress;
