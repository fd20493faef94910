//! Choosing the most important blocks of one token.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{SelectionOptions, SelectionRule};

/// A block ordered by importance, then by descending number: the larger of two is the one to
/// select. Importances are sums of exponentials and so not negative, for which the bits of an `f32`
/// order like its value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked(u64);

impl Ranked {
    fn new(importance: f32, block: usize) -> Self {
        Self(u64::from(importance.to_bits()) << 32 | u64::from(!(block as u32)))
    }

    fn importance(self) -> f32 {
        f32::from_bits((self.0 >> 32) as u32)
    }

    fn block(self) -> i32 {
        !(self.0 as u32) as i32
    }
}

/// Selects blocks; its buffers are reused from token to token.
#[derive(Default)]
pub(crate) struct Selector {
    /// The best blocks so far, the worst of them on top.
    best: BinaryHeap<Reverse<Ranked>>,
    chosen: Vec<Ranked>,
}

impl Selector {
    /// Writes the selection of a token whose own block is `importance.len()` to `slots`.
    pub(crate) fn select(
        &mut self,
        importance: &[f32],
        options: &SelectionOptions,
        slots: &mut [i32],
    ) {
        let others = slots.len() - 1;
        self.chosen.clear();
        match options.rule {
            SelectionRule::Exact => self.choose(importance, 0, others),
            SelectionRule::Reference => {
                self.choose_as_released(importance, options.budget.block_size(), others)
            }
        }
        self.write(importance.len(), slots);
    }

    /// As [`Selector::select`] by the exact rule, but only as many blocks, the own included, as it
    /// takes for their importances and `own` to sum to `least`, and at least `min`. Sums in order
    /// of importance.
    pub(crate) fn select_by_mass(
        &mut self,
        importance: &[f32],
        own: f64,
        least: f64,
        min: usize,
        slots: &mut [i32],
    ) {
        self.chosen.clear();
        self.choose(importance, 0, slots.len() - 1);
        self.chosen.sort_unstable_by_key(|&ranked| Reverse(ranked));
        let mut kept = own;
        let others = self.chosen.iter().enumerate().position(|(index, ranked)| {
            let enough = kept >= least && index + 1 >= min;
            kept += f64::from(ranked.importance());
            enough
        });
        self.chosen.truncate(others.unwrap_or(self.chosen.len()));
        self.write(importance.len(), slots);
    }

    /// Writes the chosen blocks and the token's own in ascending order.
    fn write(&self, current: usize, slots: &mut [i32]) {
        let (used, unused) = slots.split_at_mut(self.chosen.len() + 1);
        used[0] = current as i32;
        used[1..].iter_mut().zip(&self.chosen).for_each(|(slot, ranked)| *slot = ranked.block());
        used.sort_unstable();
        unused.fill(-1);
    }

    /// The released kernel goes through the blocks in chunks of `size` and carries a sorted list of
    /// `size` entries: of each new chunk the best half is merged with the best half of the list. So
    /// the halves that are left at the end are those of the last chunk, which holds the token's own
    /// block, and of all blocks before it. A single chunk is taken whole.
    fn choose_as_released(&mut self, importance: &[f32], size: usize, others: usize) {
        let last_chunk = importance.len() / size * size;
        if last_chunk == 0 {
            return self.choose(importance, 0, others);
        }
        self.choose(&importance[..last_chunk], 0, size / 2);
        self.choose(&importance[last_chunk..], last_chunk, size / 2 - 1);
        self.chosen.sort_unstable_by_key(|&ranked| Reverse(ranked));
        self.chosen.truncate(others);
    }

    /// Appends the best `count` of the blocks from number `first` to the chosen ones.
    fn choose(&mut self, importance: &[f32], first: usize, count: usize) {
        self.best.clear();
        for (block, &importance) in (first..).zip(importance) {
            let ranked = Reverse(Ranked::new(importance, block));
            if self.best.len() < count {
                self.best.push(ranked);
            } else if let Some(mut worst) = self.best.peek_mut()
                && ranked < *worst
            {
                *worst = ranked;
            }
        }
        self.chosen.extend(self.best.drain().map(|Reverse(ranked)| ranked));
    }
}
