//! Learning-rate schedules.

use std::f64::consts::PI;

/// The schedule after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleShape {
    /// Cosine decay to the minimum.
    Cosine,
    /// Warm-up, stable, decay: the peak until the decay begins, then linear decay to the minimum.
    /// The stable phase can be extended later.
    Wsd,
}

ssa_names::names!(ScheduleShape: "learning-rate schedule" { Cosine = "cosine", Wsd = "wsd" });

/// Linear warm-up to the peak learning rate, then decay to the minimum.
///
/// ```text
/// s < warmup:  peak * (s + 1) / (warmup + 1)
/// cosine:      minimum + (peak - minimum) * (1 + cos(pi * (s - warmup) / (steps - warmup))) / 2
/// wsd:         minimum + (peak - minimum) * min(1, (steps - s) / decay)
/// ```
///
/// with the steps `s` counted from 0. The first step after the warm-up runs at the peak, and the
/// minimum would be reached one step after the last: even with a minimum of 0, every step has a
/// positive learning rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Peak learning rate.
    pub peak: f64,
    /// Final learning rate.
    pub minimum: f64,
    /// Steps of the warm-up, at most `steps`.
    pub warmup: usize,
    /// Steps of the run.
    pub steps: usize,
    /// The shape after the warm-up.
    pub shape: ScheduleShape,
    /// Steps of the decay of [`ScheduleShape::Wsd`], at most `steps - warmup`.
    pub decay: usize,
}

impl Schedule {
    /// The learning rate of a step, counted from 0; the minimum after the end of the run.
    pub fn learning_rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / (self.warmup + 1) as f64;
        }
        if step >= self.steps {
            return self.minimum;
        }
        let height = match self.shape {
            ScheduleShape::Cosine => {
                let progress = (step - self.warmup) as f64 / (self.steps - self.warmup) as f64;
                0.5 * (1.0 + (PI * progress).cos())
            }
            ScheduleShape::Wsd => ((self.steps - step) as f64 / self.decay.max(1) as f64).min(1.0),
        };
        self.minimum + (self.peak - self.minimum) * height
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule {
        peak: 1.0,
        minimum: 0.1,
        warmup: 4,
        steps: 12,
        shape: ScheduleShape::Cosine,
        decay: 4,
    };
    const WSD: Schedule = Schedule { shape: ScheduleShape::Wsd, minimum: 0.0, ..SCHEDULE };

    #[test]
    fn warm_up_is_linear_from_the_first_step() {
        let rates = [0, 1, 2, 3, 4].map(|step| SCHEDULE.learning_rate(step));
        for (rate, expected) in rates.into_iter().zip([0.2, 0.4, 0.6, 0.8, 1.0]) {
            assert!((rate - expected).abs() < 1e-12, "{rate} for {expected}");
        }
    }

    #[test]
    fn cosine_falls_from_peak_to_minimum() {
        assert!((SCHEDULE.learning_rate(8) - 0.55).abs() < 1e-12);
        assert!(
            (4..12).all(|step| SCHEDULE.learning_rate(step + 1) < SCHEDULE.learning_rate(step))
        );
        assert!(SCHEDULE.learning_rate(11) > 0.1);
        assert_eq!([12, 13, 1000].map(|step| SCHEDULE.learning_rate(step)), [0.1; 3]);
    }

    #[test]
    fn wsd_is_flat_and_then_falls_in_a_straight_line() {
        assert!((0..4).all(|step| WSD.learning_rate(step) == SCHEDULE.learning_rate(step)));
        assert!((4..9).all(|step| WSD.learning_rate(step) == 1.0));
        assert_eq!(
            [9, 10, 11, 12, 99].map(|step| WSD.learning_rate(step)),
            [0.75, 0.5, 0.25, 0.0, 0.0]
        );
        let lifted = Schedule { minimum: 0.5, ..WSD };
        assert_eq!(lifted.learning_rate(10), 0.75);
        let no_decay = Schedule { decay: 0, ..WSD };
        assert!((4..12).all(|step| no_decay.learning_rate(step) == 1.0));
        let only_decay = Schedule { warmup: 0, decay: 12, ..WSD };
        assert!((0..12).all(|step| only_decay.learning_rate(step) == (12 - step) as f64 / 12.0));
    }

    #[test]
    fn extreme_lengths_are_defined() {
        let no_warmup = Schedule { warmup: 0, ..SCHEDULE };
        assert_eq!(no_warmup.learning_rate(0), 1.0);
        let one_step = Schedule { warmup: 0, steps: 1, ..SCHEDULE };
        assert_eq!(one_step.learning_rate(0), 1.0);
        let only_warmup = Schedule { warmup: 12, ..SCHEDULE };
        assert!((0..12).all(|step| only_warmup.learning_rate(step) < 1.0));
        assert_eq!(only_warmup.learning_rate(12), 0.1);
        let constant = Schedule { minimum: 1.0, warmup: 0, ..SCHEDULE };
        assert!((0..12).all(|step| constant.learning_rate(step) == 1.0));
    }
}
