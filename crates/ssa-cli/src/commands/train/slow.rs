//! Lines of the log about slow ranks.

use ssa_train::{StepMetrics, Trainer};

/// The ranks that are known to be slow.
#[derive(Default)]
pub(super) struct SlowRanks(Vec<usize>);

impl SlowRanks {
    /// Says which ranks have become slow with a step, and which no longer are.
    pub(super) fn changes(&mut self, trainer: &Trainer, metrics: &StepMetrics) -> Vec<String> {
        self.lines(metrics, |rank| trainer.host(rank).to_owned())
    }

    fn lines(&mut self, metrics: &StepMetrics, host: impl Fn(usize) -> String) -> Vec<String> {
        let (before, now) = (&self.0, &metrics.slow_ranks);
        let seconds = &metrics.rank_seconds;
        let fastest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let begins = now.iter().filter(|rank| !before.contains(rank)).map(|&rank| {
            format!(
                "rank {rank} on {} is slow: it computes {:.2} s a step, the fastest rank \
                 {fastest:.2} s",
                host(rank),
                seconds.get(rank).unwrap_or(&f64::NAN)
            )
        });
        let ends = before.iter().filter(|rank| !now.contains(rank));
        let ends = ends.map(|&rank| format!("rank {rank} on {} is no longer slow", host(rank)));
        let lines = begins.chain(ends).collect();
        self.0.clone_from(now);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_reported() {
        let line = |slow_ranks: &[usize]| -> StepMetrics {
            serde_json::from_value(serde_json::json!({
                "step": 1, "loss": 1.0, "cross_entropy": 1.0, "alignment": 0.0,
                "alignment_per_layer": [], "z_loss": 0.0, "effective_alpha": 0.0,
                "learning_rate": 1e-3, "grad_norm": 1.0, "full_streams": 1.0, "skipped_steps": 0,
                "tokens": 1, "seconds": 2.0, "rank_seconds": [1.0, 1.5], "slow_ranks": slow_ranks,
                "tokens_per_second": 1.0, "tflops": 1.0, "epoch": 0.0, "corpus_epochs": [],
            }))
            .unwrap()
        };
        let mut slow = SlowRanks::default();
        let mut changes = |ranks: &[usize]| slow.lines(&line(ranks), |rank| format!("node{rank}"));
        assert_eq!(changes(&[]), [""; 0]);
        let begins = "rank 1 on node1 is slow: it computes 1.50 s a step, the fastest rank 1.00 s";
        assert_eq!(changes(&[1]), [begins]);
        assert_eq!(changes(&[1]), [""; 0]);
        assert_eq!(changes(&[]), ["rank 1 on node1 is no longer slow"]);
    }
}
