//! Embeddings on a GPU: rows gathered, gradients summed id by id.

use half::bf16;

use super::by_id::TokensById;
use crate::cuda::elementwise::THREADS;
use crate::cuda::{
    Define, Gpu, Input, Launch, Module, Output, RowLayout, WARP, constants, device_struct, kernel,
    structs,
};
use crate::{Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "embedding",
    source: include_str!("embedding.cu"),
    headers: &[],
    constants: constants![THREADS],
    structs: structs![Run, EmbeddingFwd, EmbeddingBwd, EmbeddingBwdCombine],
    variants: &[&defines(63), &defines(2048)],
};

/// Tokens that a block adds: few enough for one frequent id to occupy the card, many enough for the
/// partial rows to be few.
const RUN_TOKENS: usize = 128;

device_struct! {
    /// A part of the sorted tokens that have the same id, or the partial rows of an id.
    struct Run {
        id: i32,
        begin: i32,
        end: i32,
        /// The partial row to write, or -1 for the only run of its id.
        slot: i32,
    }
}

kernel! {
    /// Gathers rows of the embedding.
    "embedding_fwd" in MODULE:
    struct EmbeddingFwd<'a> {
        ids: Input<'a, u32>,
        weight: Input<'a, bf16>,
        out: Output<'a, bf16>,
        tokens: i64,
    }
}

kernel! {
    /// The sum of each run: to the gradient, or to a partial row.
    "embedding_bwd" in MODULE:
    struct EmbeddingBwd<'a> {
        dout: Input<'a, bf16>,
        sorted_tokens: Input<'a, u32>,
        runs: Input<'a, Run>,
        partial: Output<'a, f32>,
        dweight: Output<'a, f32>,
    }
}

kernel! {
    /// Adds the partial rows of ids that have several.
    "embedding_bwd_combine" in MODULE:
    struct EmbeddingBwdCombine<'a> {
        partial: Input<'a, f32>,
        groups: Input<'a, Run>,
        dweight: Output<'a, f32>,
    }
}

const fn defines(hidden: usize) -> [Define; 2] {
    [("HIDDEN", hidden as i64), ("ROW_VEC", RowLayout::new(hidden).vec() as i64)]
}

pub(super) fn forward(gpu: &Gpu, ids: &[u32], weight: &Tensor, out: &mut Tensor) -> Result<()> {
    let ids_on_gpu = gpu.upload(ids)?;
    gpu.launch(
        Launch::new([ids.len().div_ceil(THREADS / WARP), 1, 1], THREADS)
            .defines(&defines(weight.last_dim())),
        EmbeddingFwd {
            ids: ids_on_gpu.input(),
            weight: weight.input()?,
            out: out.output()?,
            tokens: ids.len() as i64,
        },
    )
}

/// What the kernels add, in which order.
struct Plan {
    /// Tokens, one id after the other.
    tokens: Vec<u32>,
    /// Runs of `tokens`.
    runs: Vec<Run>,
    /// Runs of slots that belong to one id.
    groups: Vec<Run>,
    slots: usize,
}

impl Plan {
    fn new(ids: &[u32], vocab: usize) -> Result<Self> {
        let by_id = TokensById::new(ids, vocab)?;
        let (mut runs, mut groups, mut slots) = (Vec::new(), Vec::new(), 0);
        let run = |id: usize, begin: usize, end: usize, slot: i32| Run {
            id: id as i32,
            begin: begin as i32,
            end: end as i32,
            slot,
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
        Ok(Self { tokens: by_id.tokens, runs, groups, slots })
    }
}

pub(super) fn backward(gpu: &Gpu, dout: &Tensor, ids: &[u32], dweight: &mut Tensor) -> Result<()> {
    let hidden = dweight.last_dim();
    let plan = Plan::new(ids, dweight.rows())?;
    let columns = RowLayout::new(hidden).vectors();
    let threads = columns.next_multiple_of(WARP).min(THREADS);
    let column_blocks = columns.div_ceil(threads);
    let mut partial = gpu.alloc(plan.slots * hidden)?;
    let (tokens, runs) = (gpu.upload(&plan.tokens)?, gpu.upload(&plan.runs)?);
    gpu.launch(
        Launch::new([plan.runs.len(), column_blocks, 1], threads).defines(&defines(hidden)),
        EmbeddingBwd {
            dout: dout.input()?,
            sorted_tokens: tokens.input(),
            runs: runs.input(),
            partial: partial.output(),
            dweight: dweight.in_place()?,
        },
    )?;
    if plan.groups.is_empty() {
        return Ok(());
    }
    let groups = gpu.upload(&plan.groups)?;
    gpu.launch(
        Launch::new([plan.groups.len(), column_blocks, 1], threads).defines(&defines(hidden)),
        EmbeddingBwdCombine {
            partial: partial.input(),
            groups: groups.input(),
            dweight: dweight.in_place()?,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_added_once_and_in_order() {
        let ids: Vec<u32> =
            (0..1000).map(|token| if token % 3 == 0 { 7 } else { token % 11 }).collect();
        let plan = Plan::new(&ids, 12).unwrap();
        let mut next = 0;
        for &Run { id, begin, end, .. } in &plan.runs {
            assert!(begin == next && begin < end && end - begin <= RUN_TOKENS as i32);
            let tokens = &plan.tokens[begin as usize..end as usize];
            assert!(
                tokens.is_sorted() && tokens.iter().all(|&token| ids[token as usize] == id as u32)
            );
            next = end;
        }
        assert_eq!(next, 1000);
        let of_slots: Vec<_> =
            plan.runs.iter().filter(|run| run.slot >= 0).map(|run| (run.slot, run.id)).collect();
        assert!(of_slots.iter().map(|(slot, _)| *slot as usize).eq(0..plan.slots));
        for &Run { id, begin, end, .. } in &plan.groups {
            assert!(
                of_slots.iter().all(|&(slot, other)| (begin..end).contains(&slot) == (id == other))
            );
        }
    }
}
