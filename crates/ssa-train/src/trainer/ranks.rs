//! A trainer among ranks: rank 0 decides what all of them do next.
//!
//! Every rank reads the rows of the whole step, a few bytes a token, so it knows the loss
//! denominators without asking. It computes the gradient of its own groups of micro-batches, adds
//! its pieces of the gradients of all ranks, updates these pieces of the weights, for which alone
//! it has moments (ZeRO-1), and gets all others.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use ssa_data::Mixture;
use ssa_kernels::ops::grad_norm::{square_sum_count, square_sums};
use ssa_kernels::{Device, KernelError, Scalars, Tensor};
use ssa_model::{Model, Parameters, StepLosses};
use ssa_ranks::{Fact, Ranks, ShardMap};

use super::Trainer;
use crate::checkpoint::BadSteps;
use crate::optimizer::Optimizer;
use crate::{Result, TrainError, TrainPlan};

/// Gradients that are received from other ranks at a time, unless a single parameter has more.
pub(crate) const BUCKET: usize = 16 << 20;

/// What rank 0 has all ranks do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Command {
    /// A step. If it is bad, all skip its rows.
    Step,
    /// Take over the state of rank 0.
    Load,
    /// Give the moments to rank 0.
    Snapshot,
    /// No more steps.
    End,
}

impl Command {
    const ALL: [Self; 4] = [Self::Step, Self::Load, Self::Snapshot, Self::End];
}

/// The progress of a trainer, besides weights and moments.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    done: usize,
    cursor: u64,
    optimizer_steps: u64,
    bad_steps: BadSteps,
}

/// The pieces of a model's parameters that the ranks own; frozen ones have none.
pub(crate) fn shard_map(plan: &TrainPlan, parameters: &Parameters, ranks: usize) -> ShardMap {
    let is_trained = |name: &str| plan.trainable().contains(name);
    let lengths = parameters.named().into_iter();
    let lengths = lengths.map(|(name, tensor)| if is_trained(&name) { tensor.len() } else { 0 });
    ShardMap::new(lengths, ranks)
}

impl Trainer {
    /// Shares the steps of this trainer with other ranks, whose trainers have the same plan and
    /// rows. All take over the state of rank 0, which may be that of a checkpoint. Rank 0 then uses
    /// its trainer as if it were alone; the others [`follow`](Self::follow).
    ///
    /// # Errors
    /// [`TrainError::RankCount`] if the number of ranks does not divide the groups;
    /// [`TrainError::Ranks`] if the rows differ or a rank is lost.
    pub fn among(mut self, ranks: Ranks) -> Result<Self> {
        self.plan.check_ranks(ranks.size())?;
        self.ranks = ranks;
        if self.ranks.is_alone() {
            return Ok(self);
        }
        let remedy = "give all ranks the same text";
        self.ranks.agree(&Fact::new("training text", &self.text_sha256, remedy))?;
        self.grads = super::group_sum(&self.plan, self.local_groups(), &Device::Cpu)?;
        self.load()?;
        Ok(self)
    }

    /// A trainer of a rank that will take over the state of rank 0.
    ///
    /// # Errors
    /// Same as [`Trainer::new`].
    pub fn follower(plan: TrainPlan, rows: impl Into<Mixture>) -> Result<Self> {
        let model = Model::new(plan.model().clone(), Parameters::zeros(plan.model())?)?;
        Self::new(plan, model, rows)
    }

    /// Does what rank 0 says until that ends the run.
    ///
    /// # Errors
    /// Same as [`Trainer::step`], except that bad steps are left to rank 0.
    pub fn follow(&mut self) -> Result<()> {
        loop {
            let mut byte = Vec::new();
            self.ranks.broadcast_bytes("wait for rank 0", &mut byte)?;
            match Command::ALL.into_iter().find(|command| byte == [*command as u8]) {
                Some(Command::Step) => match self.step_as_told() {
                    Err(TrainError::NotFinite { .. }) => self.skip_rows(),
                    result => result.map(drop)?,
                },
                Some(Command::Load) => self.load()?,
                Some(Command::Snapshot) => drop(self.whole_moments()?),
                Some(Command::End) | None => return Ok(self.ranks.leave()?),
            }
        }
    }

    /// Tells the other ranks that there are no more steps. This trainer is then alone.
    ///
    /// # Errors
    /// [`TrainError::Ranks`].
    pub fn release_ranks(&mut self) -> Result<()> {
        self.tell(Command::End)?;
        self.ranks.leave()?;
        self.ranks = Ranks::alone();
        Ok(())
    }

    /// Has the other ranks take over the state of this one, which is whole.
    pub(super) fn share_state(&mut self) -> Result<()> {
        self.tell(Command::Load)?;
        self.load()
    }

    /// Says what this rank does, for the messages of other ranks about it.
    pub fn begin(&self, operation: &str) {
        self.ranks.begin(operation);
    }

    /// Announces a step.
    pub(super) fn announce_step(&mut self) -> Result<()> {
        self.tell(Command::Step)
    }

    /// The moments of all ranks; `None` without other ranks.
    pub(super) fn collect_moments(&mut self) -> Result<Option<(Parameters, Parameters)>> {
        self.tell(Command::Snapshot)?;
        self.whole_moments()
    }

    fn tell(&mut self, command: Command) -> Result<()> {
        if self.ranks.is_alone() {
            return Ok(());
        }
        Ok(self.ranks.broadcast_bytes("wait for rank 0", &mut vec![command as u8])?)
    }

    /// Groups of this rank.
    pub(super) fn local_groups(&self) -> usize {
        self.plan.batches().groups / self.ranks.size()
    }

    /// Takes over the progress, the weights and the own pieces of the moments of rank 0.
    fn load(&mut self) -> Result<()> {
        if self.ranks.is_alone() {
            return Ok(());
        }
        self.load_progress()?;
        let mut weights = slices_mut(self.model.parameters_mut())?;
        self.ranks.broadcast("load the weights", &mut weights)?;
        let map = shard_map(&self.plan, self.model.parameters(), self.ranks.size());
        let mut own = |name: &str, moments: &Parameters| -> Result<Parameters> {
            let mut index = 0..;
            let mut own = self.model.parameters().try_map(|_, _| {
                let piece = map.piece(index.next().unwrap_or_default(), self.ranks.rank());
                Tensor::zeros([piece.len()])
            })?;
            let whole = if self.ranks.is_leader() { slices(moments)? } else { vec![] };
            self.ranks.scatter(name, &whole, &mut slices_mut(&mut own)?, &map)?;
            Ok(own)
        };
        let (m, v) = self.optimizer.moments();
        let (m, v) = (own("load the first moments", m)?, own("load the second moments", v)?);
        self.optimizer = Optimizer::restored(*self.plan.optimizer(), m, v, self.optimizer.steps())
            .of_pieces(map, self.ranks.rank());
        Ok(())
    }

    fn load_progress(&mut self) -> Result<()> {
        let progress = Progress {
            done: self.done,
            cursor: self.cursor,
            optimizer_steps: self.optimizer.steps(),
            bad_steps: self.bad_steps,
        };
        let mut text = serde_json::to_vec(&progress).unwrap_or_default();
        self.ranks.broadcast_bytes("load the progress", &mut text)?;
        // Rank 0 runs the same program, so its text can be read.
        let progress = serde_json::from_slice(&text).unwrap_or(progress);
        self.done = progress.done;
        self.cursor = progress.cursor;
        self.bad_steps = progress.bad_steps;
        self.optimizer.set_steps(progress.optimizer_steps);
        Ok(())
    }

    /// The moments of all ranks, on rank 0. The others give theirs. `None` without other ranks.
    fn whole_moments(&mut self) -> Result<Option<(Parameters, Parameters)>> {
        let Some(map) = self.optimizer.shards() else { return Ok(None) };
        let is_leader = self.ranks.is_leader();
        let mut whole = |operation: &str, moments: &Parameters| -> Result<Parameters> {
            let mut whole = self.model.parameters().try_map(|name, tensor| {
                let is_kept = is_leader && self.plan.trainable().contains(name);
                if is_kept { Tensor::zeros(tensor.shape()) } else { Ok(Tensor::default()) }
            })?;
            let mut buffers = if is_leader { slices_mut(&mut whole)? } else { vec![] };
            self.ranks.gather(operation, &slices(moments)?, &mut buffers, map)?;
            Ok(whole)
        };
        let (m, v) = self.optimizer.moments();
        Ok(Some((whole("save the first moments", m)?, whole("save the second moments", v)?)))
    }

    /// Completes the weights, of which every rank has updated its own pieces.
    pub(super) fn gather_weights(&mut self) -> Result<()> {
        let Some(map) = self.optimizer.shards() else { return Ok(()) };
        let mut weights = slices_mut(self.model.parameters_mut())?;
        Ok(self.ranks.all_gather("gather the weights", &mut weights, map)?)
    }
}

/// The own pieces of the gradients of all ranks, added in the tree that continues that of the
/// groups.
pub(super) fn reduced(ranks: &mut Ranks, grads: &Parameters, map: &ShardMap) -> Result<Parameters> {
    let whole = slices(grads)?;
    let mut sums: Vec<Tensor> = Vec::with_capacity(whole.len());
    while sums.len() < whole.len() {
        let first = sums.len();
        let bucket = &whole[first..first + bucket_len(&whole[first..])];
        let mut addends = ranks.all_to_all("reduce the gradients", bucket, map, first)?;
        for (index, grad) in bucket.iter().enumerate() {
            let own = grad.get(map.piece(first + index, ranks.rank())).unwrap_or_default();
            addends[ranks.rank()][index] = own.to_vec();
            let parts = addends.iter_mut().map(|of_rank| std::mem::take(&mut of_rank[index]));
            sums.push(tree_sum(parts.collect())?);
        }
    }
    let mut sums = sums.into_iter();
    grads.try_map(|_, _| Ok(sums.next().unwrap_or_default()))
}

/// What the ranks know together after the backward passes.
pub(super) struct Gathered {
    /// The sums of squares of all gradients.
    pub(super) squares: Scalars,
    /// The seconds that each rank has computed.
    pub(super) seconds: Vec<f64>,
}

/// Collects the loss sums of all micro-batches and the sums of squares of all pieces, each in the
/// order that a single rank has. If one rank was asked to stop, all are.
pub(super) fn gathered(
    ranks: &mut Ranks,
    losses: &mut StepLosses,
    (grads, seconds): (&Parameters, f64),
    map: &ShardMap,
    stop: &AtomicBool,
) -> Result<Gathered> {
    let device = grads.device();
    let trained = grads.named().into_iter().map(|(_, tensor)| tensor);
    let squares = square_sums(trained.filter(|tensor| !tensor.is_empty()))?;
    let mut own = losses.sums().start_read()?.wait()?;
    let loss_count = own.len();
    own.extend(squares.start_read()?.wait()?);
    own.extend([f64::from(u8::from(stop.load(Ordering::Relaxed))), seconds]);
    let square_count =
        |parameter, rank| square_sum_count(&device, map.piece(parameter, rank).len());
    let counts: Vec<usize> = (0..map.ranks())
        .map(|rank| {
            let squares = (0..map.parameters()).map(|index| square_count(index, rank));
            loss_count + squares.sum::<usize>() + 2
        })
        .collect();
    let all = ranks.all_gather_numbers("compare the losses", &own, &counts)?;
    let mut times = Vec::with_capacity(all.len());
    for numbers in &all {
        if let [.., stops, seconds] = numbers[..] {
            stop.fetch_or(stops > 0.0, Ordering::Relaxed);
            times.push(seconds);
        }
    }
    let mut lists: Vec<_> = all.into_iter().map(Vec::into_iter).collect();
    let sums = lists.iter_mut().flat_map(|list| list.by_ref().take(loss_count)).collect();
    losses.set_sums(Scalars::known(sums));
    let mut squares = Vec::new();
    for parameter in 0..map.parameters() {
        for (rank, list) in lists.iter_mut().enumerate() {
            squares.extend(list.by_ref().take(square_count(parameter, rank)));
        }
    }
    Ok(Gathered { squares: Scalars::known(squares), seconds: times })
}

/// Number of the first buffers that are exchanged together.
fn bucket_len(buffers: &[&[f32]]) -> usize {
    let mut elements = 0;
    let fits = |buffer: &&&[f32]| {
        elements += buffer.len();
        elements <= BUCKET
    };
    buffers.iter().take_while(fits).count().max(1)
}

/// The sum of a power of two of addends: of neighbors, then of neighboring sums.
fn tree_sum(addends: Vec<Vec<f32>>) -> Result<Tensor, KernelError> {
    let tensor = |values: Vec<f32>| {
        let len = values.len();
        Tensor::from_vec(values, [len])
    };
    let mut sums = addends.into_iter().map(tensor).collect::<Result<Vec<_>, _>>()?;
    while sums.len() > 1 {
        let mut pairs = Vec::with_capacity(sums.len() / 2);
        let mut rest = sums.into_iter();
        while let Some(mut sum) = rest.next() {
            if let Some(other) = rest.next() {
                sum.add_assign(&other)?;
            }
            pairs.push(sum);
        }
        sums = pairs;
    }
    Ok(sums.pop().unwrap_or_default())
}

fn slices(parameters: &Parameters) -> Result<Vec<&[f32]>> {
    parameters.named().into_iter().map(|(_, tensor)| Ok(tensor.as_slice()?)).collect()
}

fn slices_mut(parameters: &mut Parameters) -> Result<Vec<&mut [f32]>> {
    parameters.named_mut().into_iter().map(|(_, tensor)| Ok(tensor.as_mut_slice()?)).collect()
}
