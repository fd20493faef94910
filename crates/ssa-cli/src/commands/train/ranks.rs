//! `ssa train` on several ranks: how they start and end. Rank 0 has the run directory and prints;
//! the others follow it.

use std::path::Path;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, available_parallelism};
use std::time::Duration;

use anyhow::Result;
use ssa_eval::EvalBatch;
use ssa_files::Sha256;
use ssa_kernels::Device;
use ssa_kernels::cuda::{self, LibraryFile};
use ssa_ranks::{Children, Deadlines, Fact, Ranks, RanksError, Rendezvous, World, end_with_parent};
use ssa_train::{TrainPlan, Trainer};

use super::measure::Measure;
use crate::args::{DeviceChoice, ThreadsArgs, TrainArgs};
use crate::commands::nccl;
use crate::display::note;
use crate::exit::{self, Interrupted, UsageError};
use crate::signals::Signals;

/// How long rank 0 waits for ranks that it has started to end by themselves: longer than they wait
/// for a computation that does not notice the end of another rank.
const PATIENCE: Duration = Duration::from_secs(6);

/// The threads of a rank: the ranks of a host share its cores.
pub(super) fn threads(args: &ThreadsArgs, world: &World) -> ThreadsArgs {
    let share = || {
        let cores = available_parallelism().map_or(1, usize::from);
        (world.local_size > 1).then(|| (cores / world.local_size).max(1))
    };
    ThreadsArgs { threads: args.threads.or_else(share) }
}

/// The GPUs of this host.
pub(super) fn gpu_count() -> usize {
    cuda::count().unwrap_or(0)
}

/// The device of a rank: a GPU for each, if there are any.
pub(super) fn device(args: &TrainArgs, world: &World) -> Result<DeviceChoice> {
    let choice = match args.gpus {
        Some(_) => DeviceChoice::Cuda(world.local_rank),
        None => args.compute.device,
    };
    if world.size == 1 || choice == DeviceChoice::Cpu {
        return Ok(choice);
    }
    let count = gpu_count();
    if count == 0 && choice == DeviceChoice::Auto {
        return Ok(DeviceChoice::Cpu);
    }
    // A launcher may show each rank only its own GPU.
    let own_only = count == 1 && world.children == 0;
    if world.local_size > count && !own_only {
        let (ranks, source) = (world.local_size, &world.source);
        let remedy = match count {
            0 => "pass --device cpu, or look at `ssa doctor`".to_owned(),
            _ => format!("start at most {count} ranks on this host, or pass --device cpu"),
        };
        return Err(UsageError(format!(
            "{ranks} ranks on this host ({source}), but the driver reports {count} GPUs\nhint: \
             {remedy}"
        ))
        .into());
    }
    Ok(DeviceChoice::Cuda(if own_only { 0 } else { world.local_rank }))
}

/// Runs `train` as one of the ranks, after starting those that are children of this process. If one
/// rank ends with an error, all do.
pub(super) fn run(
    world: World,
    plan: &TrainPlan,
    choice: DeviceChoice,
    train: impl FnOnce(&World, Ranks) -> Result<()>,
) -> Result<()> {
    if world.size == 1 {
        return train(&world, Ranks::alone());
    }
    if world.rank > 0 {
        exit::speak_as(world.rank);
    }
    // A rank that notices by itself that the one that started it is gone says so first.
    end_with_parent(world.rank, || {
        thread::sleep(PATIENCE);
        process::exit(i32::from(exit::RANK_LOST));
    })?;
    let nccl = if choice == DeviceChoice::Cpu { None } else { Some(nccl::find()?) };
    let facts = facts(plan, nccl.as_ref());
    let rendezvous = Rendezvous::new(world)?;
    let world = rendezvous.world().clone();
    if world.rank == 0 {
        let (size, source) = (world.size, &world.source);
        note(&format!("ranks: {size} ({source}), rank 0 at {}", world.address()));
        if let Some(nccl) = &nccl {
            let path = nccl.path.as_deref().unwrap_or(Path::new("unknown"));
            note(&format!("NCCL {} ({})", nccl.version, path.display()));
        }
    }
    let children = Arc::new(Mutex::new(Children::start(&world)?));
    let of_end = children.clone();
    let end = move |error: &RanksError| {
        let error = anyhow::Error::new(error.clone());
        exit::report(&error);
        lock(&of_end).kill();
        process::exit(i32::from(exit::code(&error)));
    };
    let check = || lock(&children).check();
    let met = rendezvous.meet(facts, Deadlines::default(), check, end);
    let result = match met {
        Err(error) => Err(error.into()),
        Ok(ranks) => {
            let alarm = ranks.alarm();
            train(&world, ranks).inspect_err(|error| {
                alarm.raise(&exit::message(error), exit::code(error));
            })
        }
    };
    let mut children = lock(&children);
    children.wait(PATIENCE);
    children.kill();
    result
}

/// A panic elsewhere leaves the list of children whole.
fn lock(children: &Mutex<Children>) -> MutexGuard<'_, Children> {
    children.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What must be the same on all ranks.
fn facts(plan: &TrainPlan, nccl: Option<&LibraryFile>) -> Vec<Fact> {
    let program = format!("{} ({})", env!("CARGO_PKG_VERSION"), env!("SSA_COMMIT"));
    let configuration = Sha256::of(plan.config().to_toml());
    let mut facts = vec![
        Fact::new("program", program, "install the same version of ssa on all hosts"),
        Fact::new(
            "configuration",
            configuration,
            "start all ranks with the same configuration file and flags; these are its SHA-256",
        ),
    ];
    facts.extend(nccl.map(|nccl| {
        Fact::new("version of NCCL", &nccl.version, "install the same version on all hosts")
    }));
    facts
}

/// What rank 0 tells the others when it has found the run.
const ADMITTED: u8 = 1;

/// Tells the other ranks that there is something to train.
pub(super) fn admit(ranks: &mut Ranks) -> Result<()> {
    Ok(ranks.broadcast_bytes("find the run", &mut vec![ADMITTED])?)
}

/// Tells the other ranks that there is nothing to train.
pub(super) fn dismiss(ranks: &mut Ranks) -> Result<()> {
    ranks.broadcast_bytes("find the run", &mut Vec::new())?;
    Ok(ranks.leave()?)
}

/// Trains as a rank other than 0.
pub(super) fn follow(plan: &TrainPlan, device: &Device, mut ranks: Ranks) -> Result<()> {
    let mut told = Vec::new();
    ranks.broadcast_bytes("find the run", &mut told)?;
    if told != [ADMITTED] {
        return Ok(ranks.leave()?);
    }
    let data = plan.open_data()?;
    let held_out = EvalBatch::of(&data.held_out, plan.config().evaluation.batch_size)?;
    let signals = Signals::catch()?;
    let trainer = Trainer::follower(plan.clone(), data.train)?.among(ranks)?;
    let mut trainer = trainer.to_device(device)?;
    trainer.stop_on(signals.flag());
    let measure = Measure::new(plan, &held_out);
    trainer.follow(|request, model, ranks| measure.follow(request, (model, ranks)))?;
    if signals.requested() && trainer.done() < plan.steps() {
        return Err(Interrupted::by_leader(trainer.done(), plan).into());
    }
    Ok(())
}
