//! Progress of a training run: a view that redraws itself on a terminal, plain lines elsewhere.

mod live;
mod plain;
mod sparkline;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use indicatif::FormattedDuration;
use ssa_eval::Monitored;
use ssa_model::Method;
use ssa_train::{LoggedStep, StepMetrics, TrainPlan};

use super::{Display, note};
use live::Live;

/// Shows a training run to people.
pub(crate) struct TrainProgress {
    facts: Facts,
    view: View,
}

enum View {
    Plain,
    Live(Box<Live>),
}

/// What both views need to know about the run.
struct Facts {
    steps: usize,
    log_every: usize,
    method: Method,
    /// When the first step was done, which compiles kernels and fills caches.
    start: Instant,
    /// Steps shown. A resumed run has done others before.
    shown: usize,
    /// Tokens and seconds of the last `log_every` steps, without what is measured between them.
    recent: VecDeque<(usize, f64)>,
}

impl TrainProgress {
    /// `history` are the steps done before, whose curves go on.
    pub(crate) fn new(plan: &TrainPlan, display: Display, history: &[LoggedStep]) -> Self {
        let facts = Facts {
            steps: plan.steps(),
            log_every: plan.config().training.log_every,
            method: plan.config().objective.method,
            start: Instant::now(),
            shown: 0,
            recent: VecDeque::new(),
        };
        let view = match display {
            Display::Plain => View::Plain,
            Display::Terminal => {
                let mut live = Live::new(plan);
                for step in history {
                    // A measurement that cannot be read leaves a gap in a curve.
                    let monitored = step.measured.view().unwrap_or_default();
                    live.remember(&step.metrics, &monitored);
                }
                View::Live(Box::new(live))
            }
        };
        Self { facts, view }
    }

    /// Shows a finished step and what was measured after it.
    pub(crate) fn step(&mut self, metrics: &StepMetrics, monitored: &Monitored) {
        self.facts.add(metrics);
        match &mut self.view {
            View::Plain => plain::show(&self.facts, metrics, monitored),
            View::Live(live) => live.show(&self.facts, metrics, monitored),
        }
    }

    /// Shows a line that is worth keeping on the terminal.
    pub(crate) fn note(&self, text: &str) {
        match &self.view {
            View::Plain => note(text),
            View::Live(live) => live.note(text),
        }
    }

    /// Leaves the last state on the terminal.
    pub(crate) fn finish(&self) {
        if let View::Live(live) = &self.view {
            live.finish();
        }
    }
}

impl Facts {
    fn add(&mut self, metrics: &StepMetrics) {
        if self.shown == 0 {
            self.start = Instant::now();
        }
        self.shown += 1;
        if self.recent.len() >= self.log_every {
            self.recent.pop_front();
        }
        self.recent.push_back((metrics.tokens, metrics.seconds));
    }

    /// Tokens per second of the last steps, and the last step's share of what the device can do if
    /// that is known.
    fn speed(&self, metrics: &StepMetrics) -> String {
        let mfu = metrics.mfu.map_or_else(String::new, |mfu| format!("  mfu {:.1} %", 100.0 * mfu));
        let (tokens, seconds) =
            self.recent.iter().fold((0, 0.0), |sum, step| (sum.0 + step.0, sum.1 + step.1));
        format!("{:.0} tok/s{mfu}", tokens as f64 / seconds)
    }

    /// The time left, if steps and measurements go on as fast as so far.
    fn left(&self, step: usize) -> FormattedDuration {
        let seconds = match self.shown {
            0 | 1 => self.recent.back().map_or(0.0, |&(_, seconds)| seconds),
            shown => self.start.elapsed().as_secs_f64() / (shown - 1) as f64,
        };
        let left = seconds * self.steps.saturating_sub(step) as f64;
        FormattedDuration(Duration::try_from_secs_f64(left.round()).unwrap_or(Duration::MAX))
    }
}

/// The stream of a step in a word of six letters, so that lines stay aligned.
fn stream(metrics: &StepMetrics) -> &'static str {
    match metrics.full_stream_fraction {
        1.0 => "full  ",
        0.0 => "sparse",
        _ => "mixed ",
    }
}
