//! Embeddings on a GPU: rows gathered, gradients summed id by id.

use super::by_id::TokensById;
use crate::cuda::{Gpu, Module};
use crate::{Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "embedding",
    source: include_str!("embedding.cu"),
    variants: &[&[("HIDDEN", 63)], &[("HIDDEN", 2048)]],
};

const THREADS: usize = 256;

/// Tokens that a block adds: few enough for one frequent id to occupy the card, many enough for the
/// partial rows to be few.
const RUN_TOKENS: usize = 128;

pub(super) fn forward(gpu: &Gpu, ids: &[u32], weight: &Tensor, out: &mut Tensor) -> Result<()> {
    let ids_on_gpu = gpu.upload(ids)?;
    let kernel = gpu.kernel(&MODULE, "embedding_fwd", &[("HIDDEN", weight.last_dim() as i64)])?;
    let launch = kernel.launch([ids.len().div_ceil(THREADS / 32), 1, 1], THREADS);
    launch.buffer(&ids_on_gpu).input(weight).output(out).i64(ids.len()).run()
}

/// A part of the tokens of one id, or of its partial rows: `[id, begin, end, slot]` as the kernels
/// read it.
type Run = [i32; 4];

/// What the kernels add, in which order.
struct Plan {
    /// Tokens, one id after the other.
    tokens: Vec<u32>,
    /// Runs of `tokens`. Slot -1: the only run of its id.
    runs: Vec<Run>,
    /// Runs of slots that belong to one id.
    groups: Vec<Run>,
    slots: usize,
}

impl Plan {
    fn new(ids: &[u32], vocab: usize) -> Self {
        let by_id = TokensById::new(ids, vocab);
        let (mut runs, mut groups, mut slots) = (Vec::new(), Vec::new(), 0);
        let run = |id: usize, begin: usize, end: usize, slot: i32| {
            [id as i32, begin as i32, end as i32, slot]
        };
        for id in 0..vocab {
            let range = by_id.range(id);
            if range.len() <= RUN_TOKENS {
                runs.extend((!range.is_empty()).then(|| run(id, range.start, range.end, -1)));
                continue;
            }
            let first = slots;
            for begin in range.clone().step_by(RUN_TOKENS) {
                runs.push(run(id, begin, range.end.min(begin + RUN_TOKENS), slots as i32));
                slots += 1;
            }
            groups.push(run(id, first, slots, 0));
        }
        Self { tokens: by_id.tokens, runs, groups, slots }
    }
}

pub(super) fn backward(gpu: &Gpu, dout: &Tensor, ids: &[u32], dweight: &mut Tensor) -> Result<()> {
    let hidden = dweight.last_dim();
    let plan = Plan::new(ids, dweight.rows());
    let columns = if hidden.is_multiple_of(8) { hidden / 8 } else { hidden };
    let threads = columns.next_multiple_of(32).min(THREADS);
    let column_blocks = columns.div_ceil(threads);
    let mut partial = gpu.alloc::<f32>(plan.slots * hidden)?;
    let (tokens, runs) = (gpu.upload(&plan.tokens)?, gpu.upload(&plan.runs)?);
    let kernel = gpu.kernel(&MODULE, "embedding_bwd", &[("HIDDEN", hidden as i64)])?;
    let launch = kernel.launch([plan.runs.len(), column_blocks, 1], threads);
    let launch = launch.input(dout).buffer(&tokens).buffer(&runs).buffer_mut(&mut partial);
    launch.in_place(dweight).run()?;
    if plan.groups.is_empty() {
        return Ok(());
    }
    let groups = gpu.upload(&plan.groups)?;
    let kernel = gpu.kernel(&MODULE, "embedding_bwd_combine", &[("HIDDEN", hidden as i64)])?;
    let launch = kernel.launch([plan.groups.len(), column_blocks, 1], threads);
    launch.buffer(&partial).buffer(&groups).in_place(dweight).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_added_once_and_in_order() {
        let ids: Vec<u32> =
            (0..1000).map(|token| if token % 3 == 0 { 7 } else { token % 11 }).collect();
        let plan = Plan::new(&ids, 12);
        let mut next = 0;
        for &[id, begin, end, _] in &plan.runs {
            assert!(begin == next && begin < end && end - begin <= RUN_TOKENS as i32);
            let tokens = &plan.tokens[begin as usize..end as usize];
            assert!(
                tokens.is_sorted() && tokens.iter().all(|&token| ids[token as usize] == id as u32)
            );
            next = end;
        }
        assert_eq!(next, 1000);
        let of_slots: Vec<_> =
            plan.runs.iter().filter(|run| run[3] >= 0).map(|run| (run[3], run[0])).collect();
        assert!(of_slots.iter().map(|(slot, _)| *slot as usize).eq(0..plan.slots));
        for &[id, begin, end, _] in &plan.groups {
            assert!(
                of_slots.iter().all(|&(slot, other)| (begin..end).contains(&slot) == (id == other))
            );
        }
    }
}
