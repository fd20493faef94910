//! What ranks exchange in a step: gradients, losses and weights.
//!
//! Tensors on the CPU go over the network, tensors on GPUs through NCCL. Numbers for the host go
//! over the network in both cases.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ssa_kernels::cuda::{Communicator, Transfer};
use ssa_kernels::ops::grad_norm::{square_sum_count, square_sums};
use ssa_kernels::{KernelError, Scalars, Tensor};
use ssa_model::{Parameters, StepLosses};
use ssa_ranks::{Ranks, ShardMap};

use super::pace::RankTimes;
use crate::Result;

/// Elements that are exchanged together, unless a single parameter has more.
pub(crate) const BUCKET: usize = 64 << 20;

const REDUCE: &str = "reduce the gradients";

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
    /// groups. On GPUs, what is received while the previous sums are computed takes the memory of
    /// two buckets, and the memory of `grads` is given back.
    pub(super) fn reduce(&mut self, grads: &mut Parameters, map: &ShardMap) -> Result<Parameters> {
        let mut sums = Vec::with_capacity(map.parameters());
        match &self.gpus {
            Some(gpus) => {
                self.ranks.begin(REDUCE);
                self.explained(reduce_on_gpus(gpus, grads, map, self.ranks.rank(), &mut sums))?;
            }
            None => {
                let whole = tensors(grads);
                for bucket in buckets(&whole) {
                    let slices: Vec<&[f32]> = whole[bucket.clone()]
                        .iter()
                        .map(|tensor| tensor.as_slice())
                        .collect::<Result<_, _>>()?;
                    let received = self.ranks.all_to_all(REDUCE, &slices, map, bucket.start)?;
                    let received = received.into_iter().map(|list| list.into_iter().map(vector));
                    let received = received.map(Iterator::collect);
                    let received = received.collect::<Result<_, KernelError>>()?;
                    sums.extend(bucket_sums(&whole, bucket, received, map, self.ranks.rank())?);
                }
            }
        }
        let mut sums = sums.into_iter();
        grads.try_map(|_, _| Ok(sums.next().unwrap_or_default()))
    }

    /// Updates the own pieces of the weights with `update`, which gets the numbers of the
    /// parameters to update, and gets the pieces of all other ranks. On GPUs, pieces are exchanged
    /// while the next ones are updated.
    pub(super) fn update_weights(
        &mut self,
        weights: &mut Parameters,
        map: &ShardMap,
        mut update: impl FnMut(&mut Parameters, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        const NAME: &str = "gather the weights";
        let Some(gpus) = &self.gpus else {
            update(weights, 0..map.parameters())?;
            return Ok(self.ranks.all_gather(NAME, &mut slices_mut(weights)?, map)?);
        };
        self.ranks.begin(NAME);
        for bucket in buckets(&tensors(weights)) {
            update(weights, bucket.clone())?;
            let parts = weights.named_mut().into_iter().map(|(_, tensor)| tensor);
            let mut parts: Vec<&mut Tensor> = parts.skip(bucket.start).take(bucket.len()).collect();
            let piece = |index, rank| map.piece(bucket.start + index, rank);
            self.explained(gpus.start_all_gather(&mut parts, piece))?;
        }
        self.explained(gpus.finish())
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

/// Adds the own pieces of the gradients on GPUs, and gives the memory of the gradients back.
fn reduce_on_gpus(
    gpus: &Communicator,
    grads: &mut Parameters,
    map: &ShardMap,
    rank: usize,
    sums: &mut Vec<Tensor>,
) -> Result<(), KernelError> {
    let buckets = buckets(&tensors(grads));
    let start = |grads: &Parameters, bucket: Range<usize>| {
        let piece = |index, rank| map.piece(bucket.start + index, rank);
        gpus.start_all_to_all(&tensors(grads)[bucket.clone()], piece)
    };
    let mut transfer = buckets.first().map(|first| start(grads, first.clone())).transpose()?;
    for (index, bucket) in buckets.iter().enumerate() {
        let next = buckets.get(index + 1).map(|next| start(grads, next.clone())).transpose()?;
        let received = transfer.map_or(Ok(vec![]), Transfer::wait)?;
        sums.extend(bucket_sums(&tensors(grads), bucket.clone(), received, map, rank)?);
        let sent = grads.named_mut().into_iter().skip(bucket.start).take(bucket.len());
        sent.for_each(|(_, grad)| grad.fill_zero());
        transfer = next;
    }
    Ok(())
}

/// The sums of the own pieces of the parameters of a bucket: `received[r][i]` is that of rank r,
/// and the own one is a part of `whole`.
fn bucket_sums(
    whole: &[&Tensor],
    bucket: Range<usize>,
    mut received: Vec<Vec<Tensor>>,
    map: &ShardMap,
    rank: usize,
) -> Result<Vec<Tensor>, KernelError> {
    let sum = |(index, parameter): (usize, usize)| {
        let addends = received.iter_mut().map(|of_rank| std::mem::take(&mut of_rank[index]));
        let own = map.piece(parameter, rank);
        tree_sum(addends.collect(), rank, whole[parameter], own)
    };
    bucket.enumerate().map(sum).collect()
}

/// The parameters that are exchanged together, in order.
fn buckets(tensors: &[&Tensor]) -> Vec<Range<usize>> {
    let (mut buckets, mut start, mut elements) = (Vec::new(), 0, 0);
    for (index, tensor) in tensors.iter().enumerate() {
        if index > start && elements + tensor.len() > BUCKET {
            buckets.push(start..index);
            (start, elements) = (index, 0);
        }
        elements += tensor.len();
    }
    buckets.push(start..tensors.len());
    buckets
}

/// The sum of a power of two of addends: of neighbors, then of neighboring sums. The addend of
/// number `rank` is the `own` part of `whole`.
fn tree_sum(
    addends: Vec<Tensor>,
    rank: usize,
    whole: &Tensor,
    own: Range<usize>,
) -> Result<Tensor, KernelError> {
    if whole.is_empty() || own.is_empty() {
        return Ok(Tensor::default());
    }
    let mut sums = pair_sums(addends, |pair, mut first, mut second| {
        // The sum of two numbers does not depend on their order.
        match rank.checked_sub(2 * pair) {
            Some(0) => second.add_elements(whole, own.start).map(|()| second),
            Some(1) => first.add_elements(whole, own.start).map(|()| first),
            _ => first.add_assign(&second).map(|()| first),
        }
    })?;
    while sums.len() > 1 {
        sums = pair_sums(sums, |_, mut first, second| first.add_assign(&second).map(|()| first))?;
    }
    Ok(sums.pop().unwrap_or_default())
}

/// The sums of neighbors; `add` gets the number of a pair.
fn pair_sums(
    addends: Vec<Tensor>,
    add: impl Fn(usize, Tensor, Tensor) -> Result<Tensor, KernelError>,
) -> Result<Vec<Tensor>, KernelError> {
    let (mut sums, mut rest) = (Vec::with_capacity(addends.len().div_ceil(2)), addends.into_iter());
    while let Some(first) = rest.next() {
        sums.push(match rest.next() {
            Some(second) => add(sums.len(), first, second)?,
            None => first,
        });
    }
    Ok(sums)
}

/// The elements on the CPU, with one axis.
fn vector(values: Vec<f32>) -> Result<Tensor, KernelError> {
    let length = values.len();
    Tensor::from_vec(values, [length])
}

fn tensors(parameters: &Parameters) -> Vec<&Tensor> {
    parameters.named().into_iter().map(|(_, tensor)| tensor).collect()
}

/// The elements of all tensors, on the CPU.
pub(super) fn slices(parameters: &Parameters) -> Result<Vec<&[f32]>> {
    parameters.named().into_iter().map(|(_, tensor)| Ok(tensor.as_slice()?)).collect()
}

/// The elements of all tensors, writable.
pub(super) fn slices_mut(parameters: &mut Parameters) -> Result<Vec<&mut [f32]>> {
    parameters.named_mut().into_iter().map(|(_, tensor)| Ok(tensor.as_mut_slice()?)).collect()
}
