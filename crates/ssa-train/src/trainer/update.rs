//! The end of a step: from the gradients of this rank to the new weights of all.

use std::time::Instant;

use ssa_model::{Losses, StepLosses};

use super::Trainer;
use super::pace::RankTimes;
use crate::Result;

/// What a step has found.
pub(super) struct Updated {
    pub(super) losses: Losses,
    pub(super) norm: f64,
    pub(super) times: Vec<RankTimes>,
    /// The seconds of reduction and update.
    pub(super) parts: [Option<f64>; 2],
}

impl Trainer {
    /// Updates the weights, unless a loss or the gradient is not finite. `times` are those of this
    /// rank so far.
    pub(super) fn update(
        &mut self,
        mut losses: StepLosses,
        times: RankTimes,
        learning_rate: f64,
    ) -> Result<Updated> {
        let Some(map) = self.optimizer.shards() else {
            let grads = self.grads.sum();
            let (norm, scale) = self.optimizer.clipped_norm(grads, losses.sums())?;
            let pending = losses.start_read([&norm])?;
            let parameters = self.model.parameters_mut();
            self.optimizer.queue_step(parameters, grads, &scale, learning_rate)?;
            let (losses, [norm]) = pending.wait()?;
            return Ok(Updated { losses, norm, times: vec![], parts: [None; 2] });
        };
        let start = Instant::now();
        let grads = self.exchange.reduce(self.grads.sum_mut(), map)?;
        let own = (&grads, times);
        let gathered = self.exchange.gather_sums(&mut losses, own, map, &self.stop)?;
        let reduced = start.elapsed();
        let (norm, scale) = self.optimizer.clip_to(&gathered.squares, losses.sums())?;
        let (map, optimizer) = (map.clone(), &mut self.optimizer);
        self.exchange.update_weights(self.model.parameters_mut(), &map, |weights, part| {
            optimizer.queue_part(weights, &grads, &scale, learning_rate, part)
        })?;
        let pending = losses.start_read([&norm])?;
        self.exchange.wait()?;
        let (losses, [norm]) = pending.wait()?;
        let updated = start.elapsed().saturating_sub(reduced);
        let parts = [reduced, updated].map(|part| Some(part.as_secs_f64()));
        Ok(Updated { losses, norm, times: gathered.times, parts })
    }
}
