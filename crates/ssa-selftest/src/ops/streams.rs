//! Two streams of a GPU: what one computes, the other reads and waits for.

use ssa_kernels::cuda::Event;
use ssa_kernels::{DType, Device};

use crate::{Context, Result};

/// Elements of a tensor, and sums that the producer queues: the consumer's kernel could start long
/// before the last one ends.
const LEN: usize = 1 << 22;
const SUMS: usize = 64;

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    context.case("an event between two streams");
    let Device::Cuda(gpu) = context.device() else {
        context.check("the CPU has no streams", 0);
        return Ok(());
    };
    let other = gpu.with_stream()?;
    let there = Device::Cuda(other.clone());
    let one = context.f32_tensor(vec![1.0; LEN], &[LEN])?;
    let one_there = one.to_device(&there, DType::F32)?;
    let mut produced = context.f32_tensor(vec![0.0; LEN], &[LEN])?;
    let refused = produced.add_assign(&one_there).err().and_then(|error| error.argument());
    context.check("tensors of two streams are refused", usize::from(refused != Some("other")));

    for _ in 0..SUMS {
        produced.add_assign(&one)?;
    }
    Event::record(gpu)?.wait(&other)?;
    let mut consumed = produced.to_device(&there, DType::F32)?;
    consumed.add_assign(&one_there)?;
    // The producer writes a copy of its own from here on, while the consumer reads.
    produced.add_assign(&one)?;
    produced.add_assign(&one)?;
    Event::record(&other)?.wait(gpu)?;
    let returned = consumed.to_device(context.device(), DType::F32)?;
    for (what, tensor, sums) in [
        ("consumer", &consumed, SUMS + 1),
        ("producer", &produced, SUMS + 2),
        ("returned", &returned, SUMS + 1),
    ] {
        context.compare_within(what, &tensor.to_vec()?, &vec![sums as f64; LEN], 0.0);
    }
    Ok(())
}
