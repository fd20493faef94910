//! What a run takes of its device's memory: `--dry-run`, and the plan that a run begins with.

use std::fs;

use anyhow::Result;
use ssa_kernels::Device;
use ssa_report::number::bytes;
use ssa_train::{MemoryEstimate, StepShape, TrainPlan};

use crate::args::DeviceChoice;
use crate::commands::device;
use crate::display::print;
use crate::exit::UsageError;

fn shape(plan: &TrainPlan, recompute: bool) -> StepShape<'_> {
    let method = plan.objective().attention.method;
    StepShape { model: plan.model(), method, tokens: plan.sequence_length(), recompute }
}

/// Takes the memory of a whole step on a GPU, or refuses a run that has no chance there, before
/// anything is written.
pub(super) fn reserve(plan: &TrainPlan, device: &Device) -> Result<()> {
    let Device::Cuda(gpu) = device else { return Ok(()) };
    let (free, _) = gpu.memory_info()?;
    let rows = plan.batches().micro_batch_size;
    let recompute = plan.objective().recompute;
    let peak = MemoryEstimate::new(&shape(plan, recompute), rows, device).peak;
    if peak <= free {
        return Ok(gpu.reserve(peak)?);
    }
    let fitting =
        |recompute| MemoryEstimate::largest_micro_batch(&shape(plan, recompute), free, device);
    let remedy = match (fitting(recompute), fitting(true)) {
        (0, 0) => "not even one row fits; set a smaller data.sequence_length or a smaller model"
            .to_owned(),
        (0, rows) => {
            format!("set training.recompute=true and training.micro_batch_size={rows} or less")
        }
        (rows, _) => {
            format!("set training.micro_batch_size={rows} or less, or training.recompute=true")
        }
    };
    Err(UsageError(format!(
        "a step of {rows} rows takes about {} on {device}, where {} are free; {remedy}",
        bytes(peak),
        bytes(free)
    ))
    .into())
}

/// Prints what a step takes; nothing is computed.
pub(super) fn dry_run(plan: &TrainPlan, choice: DeviceChoice) -> Result<()> {
    let device = device::open(choice)?;
    let rows = plan.batches().micro_batch_size;
    let free = free_memory(&device)?;
    let free_text = free.map_or("unknown".to_owned(), bytes);
    print(&format!(
        "device {device}, free memory {free_text}; rows of {} tokens",
        plan.sequence_length()
    ))?;
    print(&format!("{:28} {:>14} {:>14}", "", "keep all", "recompute"))?;
    let estimates =
        [false, true].map(|recompute| MemoryEstimate::new(&shape(plan, recompute), rows, &device));
    let line = |name: &str, part: fn(&MemoryEstimate) -> usize| {
        let [keep, recompute] = estimates.map(|estimate| bytes(part(&estimate)));
        print(&format!("{name:28} {keep:>14} {recompute:>14}"))
    };
    line("weights", |estimate| estimate.parameters)?;
    line("optimizer", |estimate| estimate.optimizer)?;
    line("gradients", |estimate| estimate.gradients)?;
    line(&format!("activations, {rows} rows at once"), |estimate| estimate.activations)?;
    line("layer or head at work", |estimate| estimate.working)?;
    line("peak", |estimate| estimate.peak)?;
    if let Some(free) = free {
        let [keep, recompute] = [false, true].map(|recompute| {
            MemoryEstimate::largest_micro_batch(&shape(plan, recompute), free, &device).to_string()
        });
        print(&format!("{:28} {keep:>14} {recompute:>14}", "largest micro_batch_size"))?;
    }
    let used = if plan.objective().recompute { "recompute" } else { "keep all" };
    print(&format!(
        "this run: {used}, micro-batches of {rows} rows, {} a step",
        plan.batches().micro_batches(plan.steps())
    ))
}

/// Memory that a run can take; none if the system does not tell.
fn free_memory(device: &Device) -> Result<Option<usize>> {
    if let Device::Cuda(gpu) = device {
        return Ok(Some(gpu.memory_info()?.0));
    }
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    Ok(kib.map(|kib| kib << 10))
}
