//! Sums over batches that the ranks of a run share.

use ssa_ranks::Ranks;

use crate::Result;
use crate::batch::EvalBatch;
use crate::losses::Score;
use crate::sum::Sum;

/// The sums over a batch, or over all batches: the scores of each inference mode, and others.
pub(crate) type Sums<S> = (Vec<Score>, Vec<S>);

/// Measures batches, of which rank r of n takes number r and every n-th after it; returns the sums
/// over all batches on all ranks. `measure` gets the number of a batch and zeros, as many of both
/// kinds as `lengths` says, to add to.
///
/// # Determinism
/// The sums of the batches are added in their order, so the number of ranks changes nothing.
pub(crate) fn shared<S: Sum>(
    batches: &[EvalBatch],
    lengths: [usize; 2],
    ranks: &mut Ranks,
    mut measure: impl FnMut(usize, &EvalBatch, &mut Sums<S>) -> Result<()>,
) -> Result<Sums<S>> {
    let zeros = || (vec![Score::default(); lengths[0]], vec![S::default(); lengths[1]]);
    let (rank, size) = (ranks.rank(), ranks.size());
    let mut own = Vec::new();
    for (index, batch) in batches.iter().enumerate().skip(rank).step_by(size) {
        let mut sums = zeros();
        measure(index, batch, &mut sums)?;
        own.extend(sums.0.iter().flat_map(Sum::to_numbers));
        own.extend(sums.1.iter().flat_map(Sum::to_numbers));
    }
    let of_batch = lengths[0] * Score::NUMBERS + lengths[1] * S::NUMBERS;
    let batches_of = |rank| batches.len().saturating_sub(rank).div_ceil(size);
    let counts: Vec<usize> = (0..size).map(|rank| batches_of(rank) * of_batch).collect();
    let all = ranks.all_gather_numbers("gather the measurements", &own, &counts)?;
    let mut total = zeros();
    for index in 0..batches.len() {
        let numbers = &all[index % size][index / size * of_batch..][..of_batch];
        let (scores, others) = numbers.split_at(lengths[0] * Score::NUMBERS);
        add_numbers(&mut total.0, scores);
        add_numbers(&mut total.1, others);
    }
    Ok(total)
}

fn add_numbers<S: Sum>(sums: &mut [S], numbers: &[f64]) {
    for (sum, numbers) in sums.iter_mut().zip(numbers.chunks_exact(S::NUMBERS)) {
        sum.add(&S::from_numbers(numbers));
    }
}
