//! The time that ranks compute and wait, and which of them are slow.

use std::collections::VecDeque;

/// Steps over which ranks are compared.
const WINDOW: usize = 20;

/// A rank is slow if it computes longer than the median of the ranks by more than this factor.
const SLOW: f64 = 1.2;

/// The seconds of a step that a rank computes its gradient and then waits for the other ranks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RankTimes {
    pub(super) computed: f64,
    pub(super) waited: f64,
}

/// The compute times of the last steps, of every rank.
#[derive(Debug, Default)]
pub(super) struct Pace(VecDeque<Vec<f64>>);

impl Pace {
    /// Adds the compute times of a step; returns the slow ranks of the last [`WINDOW`] steps. None
    /// is slow before there are so many.
    pub(super) fn add(&mut self, seconds: &[f64]) -> Vec<usize> {
        if seconds.len() < 2 {
            return Vec::new();
        }
        if self.0.len() == WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(seconds.to_vec());
        if self.0.len() < WINDOW {
            return Vec::new();
        }
        let of_rank = |rank: usize| self.0.iter().filter_map(|step| step.get(rank)).sum::<f64>();
        let sums: Vec<f64> = (0..seconds.len()).map(of_rank).collect();
        let mut sorted = sums.clone();
        sorted.sort_by(f64::total_cmp);
        // Of an even number the lower one: of two ranks, the slow one is compared with the other.
        let median = sorted[(sorted.len() - 1) / 2];
        (0..sums.len()).filter(|&rank| sums[rank] > SLOW * median).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slow ranks after a whole window of such steps.
    fn after_window(pace: &mut Pace, seconds: &[f64]) -> Vec<usize> {
        (1..WINDOW).for_each(|_| drop(pace.add(seconds)));
        pace.add(seconds)
    }

    #[test]
    fn a_rank_is_slow_if_it_computes_longer_than_the_median() {
        let mut pace = Pace::default();
        for _ in 1..WINDOW {
            assert_eq!(pace.add(&[1.0, 1.0, 1.5, 1.1]), [0; 0]);
        }
        assert_eq!(pace.add(&[1.0, 1.0, 1.5, 1.1]), [2]);
        // One long step of another rank is no trend.
        assert_eq!(pace.add(&[1.0, 3.0, 1.5, 1.1]), [2]);
        // A rank that has recovered is no longer slow after a while.
        assert_eq!(after_window(&mut pace, &[1.0, 1.0, 1.0, 1.1]), [0; 0]);
    }

    #[test]
    fn the_slow_one_of_two_ranks_is_named() {
        assert_eq!(after_window(&mut Pace::default(), &[1.5, 1.0]), [0]);
        assert_eq!(after_window(&mut Pace::default(), &[1.0]), [0; 0]);
    }
}
