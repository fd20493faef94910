//! Progress: standard error. A bar that redraws itself on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};
use ssa_model::Method;
use ssa_train::StepMetrics;

/// A line of information.
pub(crate) fn note(text: &str) {
    // Progress nobody can read is no reason to stop.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Progress of a training run.
pub(crate) struct TrainProgress {
    steps: usize,
    log_every: usize,
    method: Method,
    start: Instant,
    tokens: usize,
    bar: Option<ProgressBar>,
}

impl TrainProgress {
    pub(crate) fn new(steps: usize, log_every: usize, method: Method) -> Self {
        let bar = bar(steps, "{bar:28} {pos}/{len}  {msg}");
        Self { steps, log_every, method, start: Instant::now(), tokens: 0, bar }
    }

    /// Shows a finished step.
    pub(crate) fn step(&mut self, metrics: &StepMetrics) {
        self.tokens += metrics.tokens;
        match &self.bar {
            Some(bar) => {
                bar.set_message(self.describe(metrics));
                bar.set_position(metrics.step as u64);
            }
            None if metrics.step.is_multiple_of(self.log_every) || metrics.step == self.steps => {
                let width = self.steps.to_string().len();
                note(&format!("step {:>width$}/{}  {}", metrics.step, self.steps, self.describe(metrics)));
            }
            None => {}
        }
    }

    /// Leaves the last state of the bar on the terminal.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }

    fn describe(&self, metrics: &StepMetrics) -> String {
        let elapsed = self.start.elapsed().as_secs_f64();
        let left = elapsed / metrics.step as f64 * (self.steps - metrics.step) as f64;
        let mut text = format!("loss {:.4}", metrics.loss);
        if self.method == Method::Ssa {
            text += &format!(
                "  cross-entropy {:.4} ({})  alignment {:.5}",
                metrics.cross_entropy,
                stream(metrics),
                metrics.alignment
            );
        }
        text += &format!(
            "  {:.0} tok/s  eta {}",
            self.tokens as f64 / elapsed,
            FormattedDuration(Duration::from_secs_f64(left.round()))
        );
        text
    }
}

/// The stream of a step in a word of six letters, so that lines stay aligned.
fn stream(metrics: &StepMetrics) -> &'static str {
    match metrics.full_streams {
        1.0 => "full  ",
        0.0 => "sparse",
        _ => "mixed ",
    }
}

/// Progress over the batches of an evaluation.
pub(crate) struct BatchProgress {
    bar: Option<ProgressBar>,
}

impl BatchProgress {
    pub(crate) fn new(what: &'static str, batches: usize) -> Self {
        let bar = bar(batches, "{bar:28} {pos}/{len}  {msg}  eta {eta}");
        match &bar {
            Some(bar) => bar.set_message(what),
            None => note(&format!("{what}: {batches} batches")),
        }
        Self { bar }
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

/// A bar, if standard error is a terminal.
fn bar(length: usize, template: &str) -> Option<ProgressBar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("\u{2501}\u{2578}\u{2500}"));
    }
    Some(bar)
}
