//! Progress on standard error: redrawn on a terminal, plain lines otherwise.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use ssa_report::number::{clock, counted};

use super::line::{Line, bar};
use super::screen::Screen;

/// Writes a line of information.
pub(crate) fn note(text: &str) {
    // A broken standard error is not a reason to stop.
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
    /// In place if standard error is a capable terminal, unless plain lines are requested.
    pub(crate) fn choose(plain: bool) -> Self {
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        if plain || dumb || !io::stderr().is_terminal() { Self::Plain } else { Self::Terminal }
    }
}

/// Columns of the bar on a terminal of this width.
fn bar_width(width: usize) -> usize {
    (width / 4).clamp(8, 40)
}

/// Progress over the batches of an evaluation.
pub(crate) struct BatchProgress {
    what: &'static str,
    batches: usize,
    start: Instant,
    lines: LinePace,
    /// `None` if progress is plain lines.
    screen: Option<Screen>,
}

impl BatchProgress {
    pub(crate) fn new(display: Display, what: &'static str, batches: usize) -> Self {
        let screen = match display {
            Display::Terminal => Some(Screen::default()),
            Display::Plain => {
                note(&format!("{what}: {}", counted(batches, "batch")));
                None
            }
        };
        let now = Instant::now();
        Self { what, batches, start: now, lines: LinePace(now), screen }
    }

    /// Shows how many batches are done.
    pub(crate) fn done(&mut self, done: usize) {
        let rest = self.batches.saturating_sub(done);
        let left = time_left(self.start.elapsed(), done as u64, rest as u64);
        let (what, batches) = (self.what, self.batches);
        match &mut self.screen {
            Some(screen) => {
                screen.draw(|width| vec![batch_line(what, done, batches, left, width)]);
            }
            None if self.lines.is_due() => {
                note(&format!("{what}: {done}/{batches} batches, eta {}", clock(left)));
            }
            None => {}
        }
    }

    /// Clears the line.
    pub(crate) fn finish(&mut self) {
        self.screen.iter_mut().for_each(Screen::clear);
    }
}

fn batch_line(what: &str, done: usize, batches: usize, left: f64, width: usize) -> String {
    Line::default()
        .field(1, what)
        .field(3, bar(bar_width(width), done as f64 / batches as f64))
        .field(0, format!("{done}/{batches}"))
        .field(2, format!("eta {}", clock(left)))
        .fit(width)
}

/// Seconds between two plain lines.
const PLAIN_SECONDS: u64 = 10;

/// When the last plain line was written.
struct LinePace(Instant);

impl LinePace {
    /// Whether another line is due, which the caller then writes.
    fn is_due(&mut self) -> bool {
        let is_due = self.0.elapsed().as_secs() >= PLAIN_SECONDS;
        if is_due {
            self.0 = Instant::now();
        }
        is_due
    }
}

/// Progress over bytes or documents, some of which may be from an earlier run.
pub(crate) struct AmountProgress {
    what: &'static str,
    start: Instant,
    lines: LinePace,
    /// `None` if progress is plain lines.
    screen: Option<Screen>,
}

impl AmountProgress {
    pub(crate) fn new(display: Display, what: &'static str) -> Self {
        let now = Instant::now();
        let screen = (display == Display::Terminal).then(Screen::default);
        Self { what, start: now, lines: LinePace(now), screen }
    }

    /// Shows that `done` of `total` are done, the first `resumed` by an earlier run; a total of 0
    /// means unknown. `counts` lists the results, the most important first.
    pub(crate) fn set(
        &mut self,
        resumed: u64,
        done: u64,
        total: u64,
        counts: impl Fn() -> Vec<String>,
    ) {
        let rest = total.saturating_sub(done);
        let left = time_left(self.start.elapsed(), done.saturating_sub(resumed), rest);
        let share = (total > 0).then(|| done as f64 / total as f64);
        match &mut self.screen {
            Some(screen) => {
                let what = self.what;
                screen.draw(|width| vec![amount_line(what, share, left, counts(), width)]);
            }
            None if self.lines.is_due() => {
                let share = share.map_or_else(String::new, |share| {
                    format!("{:.0} %, eta {}, ", 100.0 * share, clock(left))
                });
                note(&format!("{}: {share}{}", self.what, counts().join(", ")));
            }
            None => {}
        }
    }

    /// Clears the line.
    pub(crate) fn finish(&mut self) {
        self.screen.iter_mut().for_each(Screen::clear);
    }
}

fn amount_line(
    what: &str,
    share: Option<f64>,
    left: f64,
    counts: Vec<String>,
    width: usize,
) -> String {
    let line = Line::default()
        .field(1, what)
        .optional(4, share.map(|share| bar(bar_width(width), share)))
        .optional(0, share.map(|share| format!("{:>3.0} %", 100.0 * share)));
    let line =
        counts.into_iter().zip(2..).fold(line, |line, (count, rank)| line.field(rank, count));
    line.optional(1, share.map(|_| format!("eta {}", clock(left)))).fit(width)
}

/// Estimated seconds for `rest` if `done` took `elapsed`.
fn time_left(elapsed: Duration, done: u64, rest: u64) -> f64 {
    if done == 0 { 0.0 } else { elapsed.as_secs_f64() / done as f64 * rest as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_progress_of_this_run() {
        let left = |seconds, done, rest| clock(time_left(Duration::from_secs(seconds), done, rest));
        assert_eq!(left(10, 100, 300), "00:00:30");
        assert_eq!(left(7200, 1, 1), "02:00:00");
        assert_eq!(left(10, 0, 300), "00:00:00", "not known yet");
        assert_eq!(left(10, 100, 0), "00:00:00");
    }

    #[test]
    fn lines_fit_their_terminal() {
        let batches = |width| batch_line("evaluating", 3, 12, 90.0, width);
        assert_eq!(batches(80), "evaluating  ━━━━━───────────────  3/12  eta 00:01:30");
        assert_eq!(batches(40), "evaluating  3/12  eta 00:01:30");
        assert_eq!(batches(20), "evaluating  3/12");
        let counts = || vec!["1,234,567 tokens".to_owned(), "3 shards".to_owned()];
        let amounts = |share, width| amount_line("preparing", share, 90.0, counts(), width);
        assert_eq!(
            amounts(Some(0.25), 80),
            "preparing  ━━━━━───────────────   25 %  1,234,567 tokens  3 shards  eta 00:01:30"
        );
        assert_eq!(
            amounts(Some(0.25), 60),
            "preparing   25 %  1,234,567 tokens  3 shards  eta 00:01:30"
        );
        assert_eq!(amounts(Some(0.25), 35), "preparing   25 %  eta 00:01:30");
        assert_eq!(amounts(None, 35), "preparing  1,234,567 tokens");
    }
}
