//! The device memory of a run.

use anyhow::Result;
use ssa_kernels::{Device, DeviceKind};
use ssa_ranks::World;
use ssa_report::number::bytes;
use ssa_train::{MemoryEstimate, TrainPlan};

use crate::commands::free_memory::free_memory;
use crate::commands::memory::{estimate_step, largest_micro_batch, require_step};
use crate::display::print;

/// Refuses a run that does not fit in memory, and reserves the memory of a step on a GPU.
pub(super) fn reserve(plan: &TrainPlan, device: &Device, world: &World) -> Result<()> {
    let bytes = require_step(plan, device, world)?;
    if let Device::Cuda(gpu) = device {
        gpu.reserve(bytes)?;
    }
    Ok(())
}

/// Prints the memory of a step with and without recomputation, for a dry run on a device.
pub(super) fn print_estimate(plan: &TrainPlan, device: &Device, world: &World) -> Result<()> {
    let free = free_memory(device, world.local_size)?;
    let free_text = free.map_or("unknown".to_owned(), |free| bytes(free as usize));
    let each = if world.local_size > 1 { " of each rank" } else { "" };
    print(&format!("device {device}, free memory{each} {free_text}"))?;
    let free = free.map(|free| ("largest micro_batch_size", free));
    print_table(plan, device.kind(), world, free.as_slice())
}

/// As [`print_estimate`] for GPUs that need not be here.
pub(super) fn print_prediction(plan: &TrainPlan, world: &World) -> Result<()> {
    print_table(plan, DeviceKind::Cuda, world, &CARDS)?;
    let peak = estimate_step(plan, plan.objective().recompute, DeviceKind::Cuda, world).peak;
    print(&format!("verdict: this run needs {} on each of {} GPUs", bytes(peak), world.size))
}

/// Memory of data-center cards, bytes, less a gigabyte for the driver and NCCL.
const CARDS: [(&str, u64); 3] = [
    ("largest micro_batch_size, 80 GB", 79_000_000_000),
    ("largest micro_batch_size, 141 GB", 140_000_000_000),
    ("largest micro_batch_size, 180 GB", 179_000_000_000),
];

/// Prints the parts of the memory, and the largest micro-batches that fit in amounts of it.
fn print_table(
    plan: &TrainPlan,
    device: DeviceKind,
    world: &World,
    amounts: &[(&str, u64)],
) -> Result<()> {
    if world.size > 1 {
        let (ranks, groups) = (world.size, plan.batches().groups);
        print(&format!("memory of each of {ranks} ranks, {groups} groups of micro-batches"))?;
    }
    print(&format!("{:32} {:>14} {:>14}", "", "keep all", "recompute"))?;
    let estimates = [false, true].map(|recompute| estimate_step(plan, recompute, device, world));
    let line = |name: &str, part: fn(&MemoryEstimate) -> usize| {
        let [keep, recompute] = estimates.map(|estimate| bytes(part(&estimate)));
        print(&format!("{name:32} {keep:>14} {recompute:>14}"))
    };
    let rows = plan.batches().micro_batch_size;
    line("weights", |estimate| estimate.parameters)?;
    line("optimizer", |estimate| estimate.optimizer)?;
    line("gradients", |estimate| estimate.gradients)?;
    if world.size > 1 {
        line("pieces of other ranks", |estimate| estimate.exchange)?;
    }
    line(&format!("activations, {rows} rows at once"), |estimate| estimate.activations)?;
    line("workspace (layer or head)", |estimate| estimate.working)?;
    if device == DeviceKind::Cpu {
        line("copy for a checkpoint", |estimate| estimate.saving)?;
        line("program and allocator", |estimate| estimate.overhead)?;
    }
    line("peak", |estimate| estimate.peak)?;
    for (name, amount) in amounts {
        let [keep, recompute] = [false, true]
            .map(|recompute| largest_micro_batch(plan, recompute, device, world, *amount));
        print(&format!("{name:32} {keep:>14} {recompute:>14}"))?;
    }
    let used = if plan.objective().recompute { "recompute" } else { "keep all" };
    print(&format!(
        "this run: {used}, micro-batches of {rows} rows, {} per step",
        plan.batches().micro_batches(plan.steps())
    ))
}
