//! What ranks exchange in a step: gradients, losses and weights.
//!
//! Tensors on the CPU go over the network, tensors on GPUs through NCCL. Numbers for the host go
//! over the network in both cases.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ssa_kernels::cuda::Communicator;
use ssa_kernels::ops::grad_norm::{square_sum_count, square_sums};
use ssa_kernels::{KernelError, Scalars, Tensor};
use ssa_model::{Parameters, StepLosses};
use ssa_ranks::{Ranks, ShardMap};

use super::pace::RankTimes;
use crate::Result;

/// Gradients that are received from other ranks at a time, unless a single parameter has more.
pub(crate) const BUCKET: usize = 16 << 20;

/// The ranks of a run, and their GPUs if they train on GPUs.
#[derive(Default)]
pub(super) struct Exchange {
    pub(super) ranks: Ranks,
    pub(super) gpus: Option<Communicator>,
}

/// What the ranks know together after the backward passes.
pub(super) struct Gathered {
    /// The sums of squares of all gradients.
    pub(super) squares: Scalars,
    /// The times of each rank.
    pub(super) times: Vec<RankTimes>,
}

impl Exchange {
    /// The own pieces of the gradients of all ranks, added in the tree that continues that of the
    /// groups.
    pub(super) fn reduce(&mut self, grads: &Parameters, map: &ShardMap) -> Result<Parameters> {
        let whole: Vec<&Tensor> = grads.named().into_iter().map(|(_, tensor)| tensor).collect();
        let mut sums: Vec<Tensor> = Vec::with_capacity(whole.len());
        while sums.len() < whole.len() {
            let first = sums.len();
            let bucket = &whole[first..first + bucket_len(&whole[first..])];
            let mut addends = self.all_to_all("reduce the gradients", bucket, map, first)?;
            for index in 0..bucket.len() {
                let parts = addends.iter_mut().map(|of_rank| std::mem::take(&mut of_rank[index]));
                sums.push(tree_sum(parts.collect())?);
            }
        }
        let mut sums = sums.into_iter();
        grads.try_map(|_, _| Ok(sums.next().unwrap_or_default()))
    }

    /// The own pieces of some parameters from `first` on, `[r][i]` as rank r has it.
    fn all_to_all(
        &mut self,
        name: &str,
        tensors: &[&Tensor],
        map: &ShardMap,
        first: usize,
    ) -> Result<Vec<Vec<Tensor>>> {
        if let Some(gpus) = &self.gpus {
            self.ranks.begin(name);
            let piece = |index, rank| map.piece(first + index, rank);
            return self.explained(gpus.all_to_all(tensors, piece));
        }
        let slices: Vec<&[f32]> =
            tensors.iter().map(|tensor| tensor.as_slice()).collect::<Result<_, _>>()?;
        let mut received = self.ranks.all_to_all(name, &slices, map, first)?;
        for (index, slice) in slices.iter().enumerate() {
            let own = slice.get(map.piece(first + index, self.ranks.rank())).unwrap_or_default();
            received[self.ranks.rank()][index] = own.to_vec();
        }
        let tensor = |values: Vec<f32>| {
            let length = values.len();
            Ok(Tensor::from_vec(values, [length])?)
        };
        received.into_iter().map(|list| list.into_iter().map(tensor).collect()).collect()
    }

    /// Completes the weights, of which every rank has updated its own pieces.
    pub(super) fn gather_weights(
        &mut self,
        weights: &mut Parameters,
        map: &ShardMap,
    ) -> Result<()> {
        const NAME: &str = "gather the weights";
        if let Some(gpus) = &self.gpus {
            self.ranks.begin(NAME);
            let mut tensors: Vec<&mut Tensor> =
                weights.named_mut().into_iter().map(|(_, tensor)| tensor).collect();
            let piece = |index, rank| map.piece(index, rank);
            return self.explained(gpus.all_gather(&mut tensors, piece));
        }
        Ok(self.ranks.all_gather(NAME, &mut slices_mut(weights)?, map)?)
    }

    /// Ends the computation that began at `start`: waits for this GPU and then for all ranks.
    /// Returns how long both took.
    pub(super) fn meet(&mut self, start: Instant) -> Result<RankTimes> {
        self.wait()?;
        let computed = start.elapsed();
        self.ranks.barrier("wait for the other ranks")?;
        let waited = start.elapsed().saturating_sub(computed);
        Ok(RankTimes { computed: computed.as_secs_f64(), waited: waited.as_secs_f64() })
    }

    /// Waits until this GPU has done all that is queued, or another rank has ended. On the CPU
    /// there is nothing to wait for.
    pub(super) fn wait(&self) -> Result<()> {
        self.gpus.as_ref().map_or(Ok(()), |gpus| self.explained(gpus.wait()))
    }

    /// The result of an operation of the GPUs. If it failed because another rank has ended, this is
    /// the error.
    pub(super) fn explained<T>(&self, result: Result<T, KernelError>) -> Result<T> {
        if let Err(KernelError::Cuda { .. }) = result {
            self.ranks.await_notice()?;
        }
        Ok(result?)
    }

    /// Collects the loss sums of all micro-batches and the sums of squares of all pieces, each in
    /// the order that a single rank has. If one rank was asked to stop, all are.
    pub(super) fn gather_sums(
        &mut self,
        losses: &mut StepLosses,
        (grads, own_times): (&Parameters, RankTimes),
        map: &ShardMap,
        stop: &AtomicBool,
    ) -> Result<Gathered> {
        let device = losses.sums().device();
        self.ranks.begin("add the gradients");
        let trained = grads.named().into_iter().map(|(_, tensor)| tensor);
        let squares = square_sums(trained.filter(|tensor| !tensor.is_empty()))?;
        let (pending, pending_squares) = (losses.sums().start_read()?, squares.start_read()?);
        self.wait()?;
        let mut own = pending.wait()?;
        let loss_count = own.len();
        own.extend(pending_squares.wait()?);
        let RankTimes { computed, waited } = own_times;
        own.extend([f64::from(u8::from(stop.load(Ordering::Relaxed))), computed, waited]);
        let square_count =
            |parameter, rank| square_sum_count(&device, map.piece(parameter, rank).len());
        let counts: Vec<usize> = (0..map.ranks())
            .map(|rank| {
                let squares = (0..map.parameters()).map(|index| square_count(index, rank));
                loss_count + squares.sum::<usize>() + 3
            })
            .collect();
        let all = self.ranks.all_gather_numbers("compare the losses", &own, &counts)?;
        let mut times = Vec::with_capacity(all.len());
        for numbers in &all {
            if let [.., stops, computed, waited] = numbers[..] {
                stop.fetch_or(stops > 0.0, Ordering::Relaxed);
                times.push(RankTimes { computed, waited });
            }
        }
        let mut lists: Vec<_> = all.into_iter().map(Vec::into_iter).collect();
        let sums = lists.iter_mut().flat_map(|list| list.by_ref().take(loss_count)).collect();
        losses.set_sums(Scalars::from_values(&device, sums)?);
        let mut squares = Vec::new();
        for parameter in 0..map.parameters() {
            for (rank, list) in lists.iter_mut().enumerate() {
                squares.extend(list.by_ref().take(square_count(parameter, rank)));
            }
        }
        Ok(Gathered { squares: Scalars::from_values(&device, squares)?, times })
    }
}

/// Number of the first tensors that are exchanged together.
fn bucket_len(tensors: &[&Tensor]) -> usize {
    let mut elements = 0;
    let fits = |tensor: &&&Tensor| {
        elements += tensor.len();
        elements <= BUCKET
    };
    tensors.iter().take_while(fits).count().max(1)
}

/// The sum of a power of two of addends: of neighbors, then of neighboring sums.
fn tree_sum(mut sums: Vec<Tensor>) -> Result<Tensor, KernelError> {
    while sums.len() > 1 {
        let mut pairs = Vec::with_capacity(sums.len() / 2);
        let mut rest = sums.into_iter();
        while let Some(mut sum) = rest.next() {
            if let Some(other) = rest.next()
                && !sum.is_empty()
            {
                sum.add_assign(&other)?;
            }
            pairs.push(sum);
        }
        sums = pairs;
    }
    Ok(sums.pop().unwrap_or_default())
}

/// The elements of all tensors, on the CPU.
pub(super) fn slices(parameters: &Parameters) -> Result<Vec<&[f32]>> {
    parameters.named().into_iter().map(|(_, tensor)| Ok(tensor.as_slice()?)).collect()
}

/// The elements of all tensors, writable.
pub(super) fn slices_mut(parameters: &mut Parameters) -> Result<Vec<&mut [f32]>> {
    parameters.named_mut().into_iter().map(|(_, tensor)| Ok(tensor.as_mut_slice()?)).collect()
}
