//! Progress of a training run: a redrawn view on a terminal, plain lines otherwise.

mod live;
mod plain;
mod sparkline;

use std::collections::VecDeque;
use std::time::Instant;

use ssa_eval::Monitored;
use ssa_model::Method;
use ssa_train::{LoggedStep, StepMetrics, TrainPlan};

use super::{Display, note};
use live::Live;

/// Shows a training run.
pub(crate) struct TrainProgress {
    facts: Facts,
    view: View,
}

enum View {
    Plain,
    Live(Box<Live>),
}

/// Facts about the run for both views.
struct Facts {
    steps: usize,
    log_every: usize,
    method: Method,
    /// The end of the first step, which compiles kernels and fills caches.
    start: Instant,
    /// Steps shown. A resumed run has earlier ones.
    shown: usize,
    /// Tokens and seconds of the last `log_every` steps, without measurements.
    recent: VecDeque<(usize, f64)>,
}

impl TrainProgress {
    /// `history` are the earlier steps, with which the curves begin.
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

    /// Shows a finished step and the measurements after it.
    pub(crate) fn step(&mut self, metrics: &StepMetrics, measured: &Monitored) {
        self.facts.add(metrics);
        match &mut self.view {
            View::Plain => plain::show(&self.facts, metrics, measured),
            View::Live(live) => live.show(&self.facts, metrics, measured),
        }
    }

    /// Shows a line that stays on the terminal.
    pub(crate) fn note(&mut self, text: &str) {
        match &mut self.view {
            View::Plain => note(text),
            View::Live(live) => live.note(text),
        }
    }

    /// Leaves the last state on the terminal.
    pub(crate) fn finish(&mut self) {
        if let View::Live(live) = &mut self.view {
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

    /// Tokens per second of the last steps.
    fn speed(&self) -> String {
        let (tokens, seconds) =
            self.recent.iter().fold((0, 0.0), |sum, step| (sum.0 + step.0, sum.1 + step.1));
        format!("{:.0} tok/s", tokens as f64 / seconds)
    }

    /// The fraction of the device's peak that a step reached, if the peak is known.
    fn mfu(metrics: &StepMetrics) -> Option<String> {
        metrics.mfu.map(|mfu| format!("mfu {:.1} %", 100.0 * mfu))
    }

    /// The seconds left after a step, at the mean speed of steps and measurements so far.
    fn left(&self, step: usize) -> f64 {
        let seconds = match self.shown {
            0 | 1 => self.recent.back().map_or(0.0, |&(_, seconds)| seconds),
            shown => self.start.elapsed().as_secs_f64() / (shown - 1) as f64,
        };
        seconds * self.steps.saturating_sub(step) as f64
    }
}

/// The name of the stream of a step.
fn stream(metrics: &StepMetrics) -> &'static str {
    match metrics.full_stream_fraction {
        1.0 => "full",
        0.0 => "sparse",
        _ => "mixed",
    }
}
