//! Batch size of the optimizer steps, with an optional ramp over the first steps.

/// The number of rows of each step.
///
/// ```text
/// s < steps:  start + (full - start) * s / steps, rounded down to a micro-batch for each group
/// otherwise:  full
/// ```
///
/// with the steps `s` counted from 0. It is a function of the step alone, so a resumed run
/// continues the ramp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRamp {
    /// Rows of a micro-batch.
    pub micro_batch_size: usize,
    /// Groups of micro-batches; `groups * micro_batch_size` divides `start` and `full`.
    pub groups: usize,
    /// Rows of the first step, at most `full`.
    pub start: usize,
    /// Rows of a step after the ramp.
    pub full: usize,
    /// Steps of the ramp; 0 for none.
    pub steps: usize,
}

impl BatchRamp {
    /// Rows of a step, counted from 0.
    pub fn rows(&self, step: usize) -> usize {
        if step >= self.steps {
            return self.full;
        }
        // The widened product cannot overflow.
        let grown = (self.full - self.start) as u128 * step as u128 / self.steps as u128;
        let grown = grown as usize;
        self.start + grown - grown % (self.groups * self.micro_batch_size)
    }

    /// Total rows of the first `steps` steps. Ramp steps are not rounded.
    pub fn total_rows(&self, steps: usize) -> u64 {
        let ramp = self.steps.min(steps) as u128;
        let pairs = ramp * ramp.saturating_sub(1) / 2;
        let grown = (self.full - self.start) as u128 * pairs / self.steps.max(1) as u128;
        let rows = ramp * self.start as u128 + grown + (steps as u128 - ramp) * self.full as u128;
        rows as u64
    }

    /// Micro-batches of a step, counted from 0.
    pub fn micro_batches(&self, step: usize) -> usize {
        self.rows(step) / self.micro_batch_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAMP: BatchRamp =
        BatchRamp { micro_batch_size: 2, groups: 1, start: 4, full: 12, steps: 8 };

    #[test]
    fn the_batch_grows_in_whole_micro_batches() {
        let rows: Vec<usize> = (0..10).map(|step| RAMP.rows(step)).collect();
        assert_eq!(rows, [4, 4, 6, 6, 8, 8, 10, 10, 12, 12]);
    }

    #[test]
    fn every_group_has_the_same_number_of_micro_batches() {
        let ramp = BatchRamp { groups: 2, ..RAMP };
        let rows: Vec<usize> = (0..10).map(|step| ramp.rows(step)).collect();
        assert_eq!(rows, [4, 4, 4, 4, 8, 8, 8, 8, 12, 12]);
    }

    #[test]
    fn without_a_ramp_every_step_is_full() {
        let ramp = BatchRamp { steps: 0, ..RAMP };
        assert!((0..5).all(|step| ramp.rows(step) == 12));
        assert_eq!([0, 5].map(|steps| ramp.total_rows(steps)), [0, 60]);
    }

    #[test]
    fn the_rows_of_a_ramp_add_up() {
        // Without rounding: 4, 5, 6, .. 11, then 12.
        assert_eq!([1, 3, 8, 10].map(|steps| RAMP.total_rows(steps)), [4, 15, 60, 84]);
    }
}
