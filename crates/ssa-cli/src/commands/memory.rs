//! Memory checks before the work starts.

use anyhow::Result;
use ssa_kernels::{Device, DeviceKind};
use ssa_ranks::World;
use ssa_report::number::{self, counted};
use ssa_train::{MemoryEstimate, StepShape, TrainPlan};

use super::free_memory::free_memory;
use crate::exit::UsageError;

/// Refuses work that needs more memory than is free. `remedy` receives the free bytes.
pub(super) fn require(
    device: &Device,
    bytes: usize,
    what: &str,
    remedy: impl FnOnce(u64) -> String,
) -> Result<()> {
    require_each(device, bytes, what, 1, remedy)
}

/// As [`require`] for each of so many processes on this host.
fn require_each(
    device: &Device,
    bytes: usize,
    what: &str,
    processes: usize,
    remedy: impl FnOnce(u64) -> String,
) -> Result<()> {
    let each = if processes > 1 { " for each rank" } else { "" };
    match free_memory(device, processes)? {
        Some(free) if bytes as u64 > free => Err(UsageError(format!(
            "{what} needs {} of memory on {device}, but only {} are free{each}\nhint: {}",
            number::bytes(bytes),
            number::bytes(free as usize),
            remedy(free)
        ))
        .into()),
        _ => Ok(()),
    }
}

/// Refuses training steps that do not fit; returns the device memory of a step in bytes.
pub(super) fn require_step(plan: &TrainPlan, device: &Device, world: &World) -> Result<usize> {
    let here = world.local_size.max(1);
    let batches = MemoryEstimate::batches(plan);
    require_each(&Device::Cpu, batches, "reading the batches of a step", here, |_| {
        "set a smaller training.batch_size or data.sequence_length".to_owned()
    })?;
    let rows = plan.batches().micro_batch_size;
    let kind = device.kind();
    let peak = estimate_step(plan, plan.objective().recompute, kind, world).peak;
    let what = format!("a step with micro-batches of {}", counted(rows, "row"));
    require_each(device, peak, &what, here, |free| remedy(plan, kind, world, free))?;
    if saves(plan) {
        let copy = MemoryEstimate::checkpoint_copy(&shape(plan, false, world));
        require(&Device::Cpu, copy, "the copy that a checkpoint is written from", |_| {
            "set checkpoint.every_steps=0 and checkpoint.every_minutes=0, or a smaller model"
                .to_owned()
        })?;
    }
    Ok(peak)
}

/// Estimates the memory of a step on a rank.
pub(super) fn estimate_step(
    plan: &TrainPlan,
    recompute: bool,
    device: DeviceKind,
    world: &World,
) -> MemoryEstimate {
    let rows = plan.batches().micro_batch_size;
    MemoryEstimate::new(&shape(plan, recompute, world), rows, device)
}

/// The largest micro-batch that fits in `free` bytes.
pub(super) fn largest_micro_batch(
    plan: &TrainPlan,
    recompute: bool,
    device: DeviceKind,
    world: &World,
    free: u64,
) -> usize {
    MemoryEstimate::largest_micro_batch(&shape(plan, recompute, world), free as usize, device)
}

fn shape<'a>(plan: &'a TrainPlan, recompute: bool, world: &World) -> StepShape<'a> {
    let method = plan.objective().attention.method;
    let (model, trained) = (plan.model(), plan.trainable().count());
    let (tokens, saves) = (plan.sequence_length(), saves(plan));
    let (groups, ranks) = (plan.batches().groups, world.size);
    StepShape { model, method, trained, tokens, recompute, saves, groups, ranks }
}

/// Whether checkpoints are saved during the run.
fn saves(plan: &TrainPlan) -> bool {
    let checkpoint = &plan.config().checkpoint;
    checkpoint.every_steps > 0 || checkpoint.every_minutes > 0.0
}

/// Settings that would fit.
fn remedy(plan: &TrainPlan, device: DeviceKind, world: &World, free: u64) -> String {
    let fitting = |recompute| largest_micro_batch(plan, recompute, device, world, free);
    match (fitting(plan.objective().recompute), fitting(true)) {
        (0, 0) => "one row does not fit; set a smaller data.sequence_length, or a smaller model \
                   (vocab_size, hidden_size, intermediate_size, num_hidden_layers)"
            .to_owned(),
        (0, rows) => format!("set training.recompute=true and {}", at_most(rows)),
        (rows, _) => format!("set {}, or training.recompute=true", at_most(rows)),
    }
}

fn at_most(rows: usize) -> String {
    let or_less = if rows > 1 { " or less" } else { "" };
    format!("training.micro_batch_size={rows}{or_less}")
}
