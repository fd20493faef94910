//! Output to users: results on standard output, progress and messages on standard error.

mod line;
mod output;
mod progress;
mod screen;
mod train;

pub(crate) use output::{print, print_json, render, write_bytes};
pub(crate) use progress::{AmountProgress, BatchProgress, Display, note};
pub(crate) use train::TrainProgress;
