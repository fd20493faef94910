//! A trainer among ranks: rank 0 decides what all of them do next.
//!
//! Every rank reads the rows of the whole step, a few bytes a token, so it knows the loss
//! denominators without asking. It computes the gradient of its own groups of micro-batches, adds
//! its pieces of the gradients of all ranks, updates these pieces of the weights, for which alone
//! it has moments (ZeRO-1), and gets all others.

use serde::{Deserialize, Serialize};
use ssa_data::Mixture;
use ssa_kernels::cuda::{Communicator, UniqueId};
use ssa_kernels::{DType, Device, Gpu, Tensor};
use ssa_model::{Model, Parameters};
use ssa_ranks::{Fact, Ranks, ShardMap};

use super::exchange::{slices, slices_mut};
use super::{Trainer, denominators};
use crate::checkpoint::BadSteps;
use crate::optimizer::Optimizer;
use crate::{Result, TrainError, TrainPlan};

/// What rank 0 has all ranks do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Command {
    /// A step. If it is bad, all skip its rows.
    Step,
    /// Take over the state of rank 0.
    Load,
    /// Measure what the next byte says.
    Measure,
    /// Give the moments to rank 0.
    Moments,
    /// Give the master weights to rank 0.
    Masters,
    /// Use the algorithms of rank 0.
    Algorithms,
    /// No more steps.
    End,
}

impl Command {
    const ALL: [Self; 7] = [
        Self::Step,
        Self::Load,
        Self::Measure,
        Self::Moments,
        Self::Masters,
        Self::Algorithms,
        Self::End,
    ];
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
        self.exchange.ranks = ranks;
        if self.exchange.ranks.is_alone() {
            return Ok(self);
        }
        let remedy = "give all ranks the same text";
        self.exchange.ranks.agree(&Fact::new("training text", &self.text_sha256, remedy))?;
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

    /// Does what rank 0 says until that ends the run. `measure` does the same as rank 0 after
    /// [`measure`](Self::measure), with the number of what is to be measured.
    ///
    /// # Errors
    /// Same as [`Trainer::step`], except that bad steps are left to rank 0; those of `measure`.
    pub fn follow<E: From<TrainError>>(
        &mut self,
        mut measure: impl FnMut(u8, &Model, &mut Ranks) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(request) = self.follow_until_request()? {
            measure(request, &self.model, &mut self.exchange.ranks)?;
        }
        Ok(())
    }

    /// Does what rank 0 says until that asks for a measurement, which is returned, or ends the run.
    fn follow_until_request(&mut self) -> Result<Option<u8>> {
        loop {
            let mut bytes = Vec::new();
            self.exchange.ranks.broadcast_bytes("wait for rank 0", &mut bytes)?;
            let (first, request) = (bytes.first().copied(), bytes.get(1).copied());
            match Command::ALL.into_iter().find(|command| first == Some(*command as u8)) {
                Some(Command::Step) => match self.step_as_told() {
                    Err(TrainError::NotFinite { .. }) => self.skip_rows(),
                    result => result.map(drop)?,
                },
                Some(Command::Measure) => return Ok(request),
                Some(Command::Load) => {
                    let device = self.model.device();
                    *self.model.parameters_mut() = Parameters::zeros(self.plan.model())?;
                    self.load()?;
                    self.move_to(&device)?;
                }
                Some(Command::Moments) => drop(self.whole_moments()?),
                Some(Command::Masters) => drop(self.whole_masters()?),
                Some(Command::Algorithms) => self.share_algorithms(String::new())?,
                Some(Command::End) | None => {
                    self.exchange.ranks.leave()?;
                    return Ok(None);
                }
            }
        }
    }

    /// Has the other ranks measure together with this one: they get this number. Returns what to
    /// measure, and the ranks to share the work with.
    ///
    /// # Errors
    /// [`TrainError::Ranks`].
    pub fn measure(&mut self, request: u8) -> Result<(&Model, &mut Ranks)> {
        self.tell_bytes(&[Command::Measure as u8, request])?;
        Ok((&self.model, &mut self.exchange.ranks))
    }

    /// Tells the other ranks that there are no more steps. This trainer is then alone.
    ///
    /// # Errors
    /// [`TrainError::Ranks`].
    pub fn release_ranks(&mut self) -> Result<()> {
        self.tell(Command::End)?;
        self.exchange.ranks.leave()?;
        self.exchange.ranks = Ranks::alone();
        Ok(())
    }

    /// Has the other ranks take over the state of this one, which is whole.
    pub(super) fn share_state(&mut self) -> Result<()> {
        self.tell(Command::Load)?;
        self.load()
    }

    /// The host of a rank.
    pub fn host(&self, rank: usize) -> &str {
        self.exchange.ranks.host(rank)
    }

    /// Says what this rank does, for the messages of other ranks about it.
    pub fn begin(&self, operation: &str) {
        self.exchange.ranks.begin(operation);
    }

    /// Announces a step. Before the first one on GPUs, this rank computes its part alone, which
    /// chooses the algorithms of all matrix products and compiles the kernels; all ranks then use
    /// these algorithms, and those that share the cache of kernels find them there.
    pub(super) fn announce_step(&mut self) -> Result<()> {
        if let Device::Cuda(gpu) = self.model.device()
            && self.exchange.gpus.is_some()
            && !self.shares_algorithms
        {
            let batches = self.micro_batches()?;
            let denominators = denominators(&batches);
            drop(self.accumulate(batches, denominators)?.read()?);
            self.tell(Command::Algorithms)?;
            self.share_algorithms(gpu.matmul_algorithms())?;
        }
        self.tell(Command::Step)
    }

    fn share_algorithms(&mut self, text: String) -> Result<()> {
        let mut text = text.into_bytes();
        self.exchange.ranks.broadcast_bytes("share the algorithms", &mut text)?;
        if let Device::Cuda(gpu) = self.model.device() {
            gpu.adopt_matmul_algorithms(&String::from_utf8_lossy(&text));
        }
        self.shares_algorithms = true;
        Ok(())
    }

    /// Connects the GPUs of all ranks.
    pub(super) fn connect_gpus(&mut self, gpu: &Gpu) -> Result<()> {
        let ranks = &mut self.exchange.ranks;
        let name = &gpu.properties().name;
        ranks.agree(&Fact::new("GPU", name, "use GPUs of one kind, for equal results"))?;
        let mut id = Vec::new();
        if ranks.is_leader() {
            id.extend(UniqueId::new()?.to_bytes());
        }
        ranks.broadcast_bytes("connect the GPUs", &mut id)?;
        let mut bytes = [0; UniqueId::LEN];
        bytes.iter_mut().zip(id).for_each(|(byte, sent)| *byte = sent);
        let id = UniqueId::from_bytes(bytes);
        ranks.begin("connect the GPUs");
        let place = [ranks.rank(), ranks.size()];
        let connected = Communicator::new(gpu, place, id, ranks.watch());
        self.exchange.gpus = Some(self.exchange.explained(connected)?);
        Ok(())
    }

    /// The moments of all ranks; `None` without other ranks.
    pub(super) fn collect_moments(&mut self) -> Result<Option<(Parameters, Parameters)>> {
        self.tell(Command::Moments)?;
        self.whole_moments()
    }

    /// The master weights of all ranks, on the CPU.
    pub(super) fn collect_masters(&mut self) -> Result<Parameters> {
        if self.model.device() == Device::Cpu {
            return self.optimizer.masters(self.model.parameters());
        }
        self.tell(Command::Masters)?;
        match self.whole_masters()? {
            Some(masters) => Ok(masters),
            None => self.optimizer.masters(self.model.parameters()),
        }
    }

    fn tell(&mut self, command: Command) -> Result<()> {
        self.tell_bytes(&[command as u8])
    }

    fn tell_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        if self.exchange.ranks.is_alone() {
            return Ok(());
        }
        Ok(self.exchange.ranks.broadcast_bytes("wait for rank 0", &mut bytes.to_vec())?)
    }

    /// Groups of this rank.
    pub(super) fn local_groups(&self) -> usize {
        self.plan.batches().groups / self.exchange.ranks.size()
    }

    /// Takes over the progress, the weights and the own pieces of the moments of rank 0.
    fn load(&mut self) -> Result<()> {
        if self.exchange.ranks.is_alone() {
            return Ok(());
        }
        self.load_progress()?;
        let mut weights = slices_mut(self.model.parameters_mut())?;
        self.exchange.ranks.broadcast("load the weights", &mut weights)?;
        let map = shard_map(&self.plan, self.model.parameters(), self.exchange.ranks.size());
        let steps = self.optimizer.steps();
        let mut own = |name: &str, moments: &Parameters| -> Result<Parameters> {
            let mut index = 0..;
            let mut own = self.model.parameters().try_map(|_, _| {
                let piece = map.piece(index.next().unwrap_or_default(), self.exchange.ranks.rank());
                Tensor::zeros([piece.len()])
            })?;
            // Before the first step all moments are zero.
            if steps == 0 {
                return Ok(own);
            }
            let whole = if self.exchange.ranks.is_leader() { slices(moments)? } else { vec![] };
            self.exchange.ranks.scatter(name, &whole, &mut slices_mut(&mut own)?, &map)?;
            Ok(own)
        };
        let (m, v) = self.optimizer.moments();
        let (m, v) = (own("load the first moments", m)?, own("load the second moments", v)?);
        self.optimizer = Optimizer::restored(*self.plan.optimizer(), m, v, self.optimizer.steps())
            .of_pieces(map, self.exchange.ranks.rank());
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
        self.exchange.ranks.broadcast_bytes("load the progress", &mut text)?;
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
        let (m, v) = self.optimizer.moments();
        let ranks = &mut self.exchange.ranks;
        let mut whole = |operation: &str, moments: &Parameters| {
            let host = moments.try_map(|_, tensor| tensor.to_device(&Device::Cpu, DType::F32))?;
            gathered(ranks, operation, &host, map, &self.plan)
        };
        Ok(Some((whole("save the first moments", m)?, whole("save the second moments", v)?)))
    }

    /// As [`whole_moments`](Self::whole_moments) for the master weights; frozen ones are those of
    /// rank 0.
    fn whole_masters(&mut self) -> Result<Option<Parameters>> {
        let Some(map) = self.optimizer.shards() else { return Ok(None) };
        let pieces = self.optimizer.masters(self.model.parameters())?;
        let ranks = &mut self.exchange.ranks;
        let mut whole = gathered(ranks, "save the weights", &pieces, map, &self.plan)?;
        let tensors = whole.named_mut().into_iter().zip(pieces.named());
        for ((name, tensor), (_, own)) in tensors {
            if !self.plan.trainable().contains(&name) {
                *tensor = own.try_clone()?;
            }
        }
        Ok(Some(whole))
    }
}

/// Whole tensors of the pieces of all ranks, on rank 0; without elements for frozen parameters and
/// on other ranks.
fn gathered(
    ranks: &mut Ranks,
    operation: &str,
    pieces: &Parameters,
    map: &ShardMap,
    plan: &TrainPlan,
) -> Result<Parameters> {
    let is_leader = ranks.is_leader();
    let is_kept = |name: &str| is_leader && plan.trainable().contains(name);
    let mut whole = Parameters::zeros_for(plan.model(), &Device::Cpu, DType::F32, is_kept)?;
    let own: Vec<&[f32]> = pieces
        .named()
        .into_iter()
        .map(|(name, piece)| match plan.trainable().contains(&name) {
            true => piece.as_slice(),
            false => Ok(&[][..]),
        })
        .collect::<Result<_, _>>()?;
    let mut buffers = if is_leader { slices_mut(&mut whole)? } else { vec![] };
    ranks.gather(operation, &own, &mut buffers, map)?;
    Ok(whole)
}
