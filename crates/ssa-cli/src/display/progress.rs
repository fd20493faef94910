//! Progress: standard error. A bar that redraws itself on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{FormattedDuration, HumanCount, ProgressBar, ProgressStyle};

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

/// Seconds between two plain lines.
const PLAIN_SECONDS: u64 = 10;

/// Progress over bytes or documents, of which some may have been done before.
pub(crate) struct AmountProgress {
    what: &'static str,
    bar: Option<ProgressBar>,
    start: Instant,
    last_line: Instant,
}

impl AmountProgress {
    pub(crate) fn new(display: Display, what: &'static str) -> Self {
        let bar = (display == Display::Terminal).then(ProgressBar::no_length);
        let now = Instant::now();
        Self { what, bar, start: now, last_line: now }
    }

    /// Shows that `done` of `total` are done, the first `resumed` of them before; a total of 0 is
    /// not known.
    pub(crate) fn set(
        &mut self,
        resumed: u64,
        done: u64,
        total: u64,
        message: impl Fn() -> String,
    ) {
        let left =
            left(self.start.elapsed(), done.saturating_sub(resumed), total.saturating_sub(done));
        let known = total > 0;
        if let Some(bar) = &self.bar {
            if known && bar.length() != Some(total) {
                bar.set_style(bar_style("{bar:28} {percent:>3} %  {msg}"));
                bar.set_length(total);
            }
            bar.set_position(done);
            let eta = if known { format!("  eta {left}") } else { String::new() };
            bar.set_message(format!("{}: {}{eta}", self.what, message()));
        } else if self.last_line.elapsed().as_secs() >= PLAIN_SECONDS {
            self.last_line = Instant::now();
            let share = if known {
                format!("{:.0} %, eta {left}, ", 100.0 * done as f64 / total as f64)
            } else {
                String::new()
            };
            note(&format!("{}: {share}{}", self.what, message()));
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The time that `rest` will take if `done` took `elapsed`.
fn left(elapsed: Duration, done: u64, rest: u64) -> FormattedDuration {
    let seconds = if done == 0 { 0.0 } else { elapsed.as_secs_f64() / done as f64 * rest as f64 };
    FormattedDuration(Duration::from_secs_f64(seconds.round()))
}

/// A large number with groups of three digits.
pub(crate) fn amount(number: u64) -> String {
    HumanCount(number).to_string()
}

/// The looks of a bar.
pub(super) fn bar_style(template: &str) -> ProgressStyle {
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("\u{2501}\u{2578}\u{2500}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_what_this_run_has_done() {
        let left = |seconds, done, rest| left(Duration::from_secs(seconds), done, rest).to_string();
        assert_eq!(left(10, 100, 300), "00:00:30");
        assert_eq!(left(7200, 1, 1), "02:00:00");
        assert_eq!(left(10, 0, 300), "00:00:00", "not known yet");
        assert_eq!(left(10, 100, 0), "00:00:00");
    }
}
