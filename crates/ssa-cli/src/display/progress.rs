//! Progress: standard error. A bar that redraws itself on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// A line of information.
pub(crate) fn note(text: &str) {
    // Progress nobody can read is no reason to stop.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Display {
    /// Redrawn in place.
    Terminal,
    /// Line by line.
    Plain,
}

impl Display {
    /// In place if standard error is a terminal, unless plain lines are asked for.
    pub(crate) fn choose(plain: bool) -> Self {
        if plain || !io::stderr().is_terminal() { Self::Plain } else { Self::Terminal }
    }
}

/// Progress over the batches of an evaluation.
pub(crate) struct BatchProgress {
    bar: Option<ProgressBar>,
}

impl BatchProgress {
    pub(crate) fn new(display: Display, what: &'static str, batches: usize) -> Self {
        if display == Display::Plain {
            note(&format!("{what}: {batches} batches"));
            return Self { bar: None };
        }
        let style = bar_style("{bar:28} {pos}/{len}  {msg}  eta {eta}");
        let bar = ProgressBar::new(batches as u64).with_style(style).with_message(what);
        Self { bar: Some(bar) }
    }

    /// Shows that so many batches are done.
    pub(crate) fn done(&self, batches: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(batches as u64);
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The looks of a bar.
pub(super) fn bar_style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("\u{2501}\u{2578}\u{2500}")
}
