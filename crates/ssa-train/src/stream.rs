//! The random draw of SSA: which attention feeds the next layer in a step.
//!
//! The draw is a pure function of seed, step and (for the finer scopes) micro-batch or layer. It
//! has no state, so a resumed run and all ranks agree without communication.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ssa_model::{AttentionMode, Method, Training};

/// Makes the draw independent of other uses of the run's seed (weights, order of the data).
const PURPOSE: &[u8; 24] = b"ssa-train: stream draw 1";

/// The scope of one draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamScope {
    /// All micro-batches and layers of an optimizer step.
    Step,
    /// All layers of a micro-batch.
    MicroBatch,
    /// One layer in all micro-batches of a step: an ablation only.
    Layer,
}

ssa_names::names!(StreamScope: "scope of the stream draw" {
    Step = "step",
    MicroBatch = "micro_batch",
    Layer = "layer",
});

/// Draws the stream of methods that train on both: full attention with probability `full_ratio`.
/// Other methods have only one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamDraw {
    seed: u64,
    full_ratio: f64,
    scope: StreamScope,
}

impl StreamDraw {
    /// Creates the draw of a method. Only methods that train on both streams use `full_ratio`.
    pub fn new(method: Method, seed: u64, full_ratio: f64, scope: StreamScope) -> Self {
        let full_ratio = match method.training() {
            Training::Single(AttentionMode::Full) => 1.0,
            Training::Single(AttentionMode::Sparse) => 0.0,
            Training::Aligned => full_ratio,
        };
        Self { seed, full_ratio, scope }
    }

    /// Returns the stream of each of `layers` layers in a micro-batch of a step.
    pub fn streams(&self, step: u64, micro_batch: u64, layers: usize) -> Vec<AttentionMode> {
        match self.scope {
            StreamScope::Step => vec![self.draw(step, 0); layers],
            StreamScope::MicroBatch => vec![self.draw(step, micro_batch); layers],
            StreamScope::Layer => (0..layers as u64).map(|layer| self.draw(step, layer)).collect(),
        }
    }

    /// Draw number `index` of a step: ChaCha with the step as its stream and the index as its block
    /// counter.
    fn draw(&self, step: u64, index: u64) -> AttentionMode {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..].copy_from_slice(PURPOSE);
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(step);
        generator.set_word_pos(u128::from(index) * 16);
        // A 53-bit random number in [0, 1), so that the ratios 0 and 1 are exact.
        let uniform = (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        if uniform < self.full_ratio { AttentionMode::Full } else { AttentionMode::Sparse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: u64 = 4000;

    fn ssa(full_ratio: f64, scope: StreamScope) -> StreamDraw {
        StreamDraw::new(Method::SSA, 7, full_ratio, scope)
    }

    fn full_share(draw: &StreamDraw) -> f64 {
        let full = |step| draw.streams(step, 0, 1)[0] == AttentionMode::Full;
        (0..STEPS).filter(|&step| full(step)).count() as f64 / STEPS as f64
    }

    #[test]
    fn frequency_is_the_ratio() {
        for ratio in [0.25, 0.5, 0.75] {
            // Four standard deviations of a binomial proportion.
            let allowed = 4.0 * (ratio * (1.0 - ratio) / STEPS as f64).sqrt();
            let share = full_share(&ssa(ratio, StreamScope::Step));
            assert!((share - ratio).abs() < allowed, "{share} for {ratio}");
        }
    }

    #[test]
    fn ratios_zero_and_one_are_exact() {
        assert_eq!(full_share(&ssa(0.0, StreamScope::Step)), 0.0);
        assert_eq!(full_share(&ssa(1.0, StreamScope::Step)), 1.0);
    }

    #[test]
    fn other_methods_never_draw() {
        let share = |method| full_share(&StreamDraw::new(method, 7, 0.5, StreamScope::Step));
        assert_eq!([Method::FULL, Method::MOBA, Method::NSA].map(share), [1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_draw_depends_on_its_arguments_alone() {
        let draw = ssa(0.5, StreamScope::MicroBatch);
        let forwards: Vec<_> = (0..100).map(|step| draw.streams(step, 1, 2)).collect();
        let backwards: Vec<_> =
            (0..100).rev().map(|step| draw.clone().streams(step, 1, 2)).collect();
        assert!(forwards.iter().eq(backwards.iter().rev()));
        let other = StreamDraw::new(Method::SSA, 8, 0.5, StreamScope::MicroBatch);
        assert_ne!(forwards, (0..100).map(|step| other.streams(step, 1, 2)).collect::<Vec<_>>());
    }

    #[test]
    fn scopes_reach_as_far_as_they_say() {
        let micro_batches = |scope| {
            let draw = ssa(0.5, scope);
            (0..200)
                .map(|step| [0, 1].map(|micro_batch| draw.streams(step, micro_batch, 4)))
                .collect::<Vec<_>>()
        };
        let one_stream =
            |streams: &Vec<AttentionMode>| streams.iter().all(|stream| *stream == streams[0]);

        let step = micro_batches(StreamScope::Step);
        assert!(step.iter().all(|[a, b]| a == b && one_stream(a)));
        let micro_batch = micro_batches(StreamScope::MicroBatch);
        assert!(micro_batch.iter().flatten().all(one_stream));
        assert!(micro_batch.iter().any(|[a, b]| a != b));
        let layer = micro_batches(StreamScope::Layer);
        assert!(layer.iter().all(|[a, b]| a == b));
        assert!(layer.iter().any(|[a, _]| !one_stream(a)));
    }

    #[test]
    fn the_draw_of_a_seed_is_pinned() {
        // A different sequence would silently change the meaning of every published seed.
        let draw = StreamDraw::new(Method::SSA, 0, 0.5, StreamScope::Step);
        let toss =
            |step| if draw.streams(step, 0, 1)[0] == AttentionMode::Full { 'F' } else { 's' };
        assert_eq!((0..16).map(toss).collect::<String>(), "FFsFsFFFFsssFssF");
    }
}
