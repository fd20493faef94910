//! Drawing tokens on a GPU; the source explains its design.

use crate::cuda::{
    Buffer, DEPENDENT_LAUNCH, Gpu, Input, Launch, Module, Output, constants, int, kernel,
    parameter_group, structs,
};
use crate::ops::sampling::{ALL_LOWEST, Draw, INFINITE, NOT_A_NUMBER, SamplingError};
use crate::{KernelError, Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "sampling",
    source: include_str!("sampling.cu"),
    headers: &[&DEPENDENT_LAUNCH],
    constants: constants![
        THREADS,
        TOKENS_PER_THREAD,
        GROUP_LANES,
        DRAW_THREADS,
        DRAW_NUMBERS,
        DRAW_INTEGERS,
        CODE_NOT_A_NUMBER,
        CODE_INFINITE,
        CODE_ALL_LOWEST
    ],
    structs: structs![Logits, LargestLogits, ListCandidates, DrawTokens],
    variants: &[&[]],
};

/// Threads of a block that goes through a chunk of a vocabulary.
const THREADS: usize = 256;
const TOKENS_PER_THREAD: usize = 8;
/// Tokens of a chunk.
const CHUNK: usize = THREADS * TOKENS_PER_THREAD;
/// Lanes whose tokens are a group, of which the largest logit is kept.
const GROUP_LANES: usize = 8;
/// Groups of a chunk.
const CHUNK_GROUPS: usize = THREADS / GROUP_LANES;
/// Threads of a block that draws.
const DRAW_THREADS: usize = 1024;
/// Settings of a draw: temperature, top-p, min-p and repetition penalty,
const DRAW_NUMBERS: usize = 4;
/// and top-k, vocabulary, two words of the seed and two of the request.
const DRAW_INTEGERS: usize = 6;

// In place of a token: what is wrong with the logits.
const CODE_NOT_A_NUMBER: i32 = -1;
const CODE_INFINITE: i32 = -2;
const CODE_ALL_LOWEST: i32 = -3;

parameter_group! {
    /// Logits and what is drawn from them.
    struct Logits<'a> {
        /// `[N, V]`.
        logits: Input<'a, f32>,
        /// Position of the last token of each sequence.
        positions: Input<'a, i32>,
        /// `[N, DRAW_NUMBERS]`.
        numbers: Input<'a, f64>,
        /// `[N, DRAW_INTEGERS]`.
        integers: Input<'a, u32>,
        /// A bit for every token that a sequence has, `[N, V / 32, rounded up]`; for draws with a
        /// repetition penalty.
        seen: Input<'a, u32>,
        /// Largest logit of every group of tokens `[N, chunks, CHUNK_GROUPS]`.
        group_maxima: Output<'a, f32>,
        /// Bits of the largest logit of every chunk, and its token, `[N, chunks]`.
        best: Output<'a, [i32; 2]>,
        /// Candidates of every chunk `[N, chunks, CHUNK]`.
        candidates: Output<'a, i32>,
        /// Their number `[N, chunks]`.
        counts: Output<'a, i32>,
        /// Sum of the weights of all tokens of every chunk `[N, chunks]`.
        weights: Output<'a, f64>,
        vocab: i32,
        chunks: i32,
    }
}

kernel! {
    /// The largest logit of every group and chunk.
    "largest_logits" in MODULE:
    struct LargestLogits<'a> {
        draw: Logits<'a>,
    }
}

kernel! {
    /// The tokens of every chunk that may be drawn.
    "list_candidates" in MODULE:
    struct ListCandidates<'a> {
        draw: Logits<'a>,
    }
}

kernel! {
    /// The tokens that are drawn.
    "draw_tokens" in MODULE:
    struct DrawTokens<'a> {
        draw: Logits<'a>,
        /// The drawn tokens.
        ids: Output<'a, i32>,
        /// Those of `draw`, which move on by one.
        positions: Output<'a, i32>,
        /// Those of `draw`, to which the drawn tokens are added.
        seen: Output<'a, u32>,
    }
}

/// How the tokens of some rows of logits are drawn, and intermediate results.
pub(crate) struct DeviceDraws {
    rows: usize,
    vocab: usize,
    numbers: Buffer<f64>,
    integers: Buffer<u32>,
    seen: Buffer<u32>,
    group_maxima: Buffer<f32>,
    best: Buffer<[i32; 2]>,
    candidates: Buffer<i32>,
    counts: Buffer<i32>,
    weights: Buffer<f64>,
}

impl DeviceDraws {
    /// For so many rows of logits `[V]`.
    pub(crate) fn new(op: &'static str, gpu: &Gpu, rows: usize, vocab: usize) -> Result<Self> {
        let chunks = vocab.div_ceil(CHUNK);
        if chunks > DRAW_THREADS {
            let expected = format!("at most {} tokens on a GPU", DRAW_THREADS * CHUNK);
            return Err(KernelError::value(op, "vocabulary", expected, vocab));
        }
        Ok(Self {
            rows,
            vocab,
            numbers: gpu.alloc(rows * DRAW_NUMBERS)?,
            integers: gpu.alloc(rows * DRAW_INTEGERS)?,
            seen: gpu.alloc(rows * vocab.div_ceil(32))?,
            group_maxima: gpu.alloc(rows * chunks * CHUNK_GROUPS)?,
            best: gpu.alloc(rows * chunks)?,
            candidates: gpu.alloc(rows * chunks * CHUNK)?,
            counts: gpu.alloc(rows * chunks)?,
            weights: gpu.alloc(rows * chunks)?,
        })
    }

    /// Sets how the token of each row is drawn, and the tokens before it.
    pub(crate) fn set(&self, draws: &[(Draw<'_>, &[u32])]) -> Result<()> {
        let mut numbers = Vec::with_capacity(draws.len() * DRAW_NUMBERS);
        let mut integers = Vec::with_capacity(draws.len() * DRAW_INTEGERS);
        for (draw, _) in draws {
            let (options, noise) = (&draw.sampler.options, draw.sampler.noise);
            let penalty = f64::from(options.repetition_penalty as f32);
            numbers.extend([options.temperature, options.top_p, options.min_p, penalty]);
            let [seed, request] =
                [noise.seed, noise.request].map(|it| [it as u32, (it >> 32) as u32]);
            let vocabulary = draw.vocabulary.min(self.vocab);
            integers.extend([options.top_k.min(vocabulary) as u32, vocabulary as u32]);
            integers.extend([seed, request].concat());
        }
        self.numbers.shared_write(&numbers)?;
        self.integers.shared_write(&integers)?;
        if draws.iter().all(|(draw, _)| draw.sampler.options.repetition_penalty == 1.0) {
            return Ok(());
        }
        let words = self.vocab.div_ceil(32);
        let mut seen = vec![0_u32; draws.len() * words];
        for (row, (_, ids)) in seen.chunks_exact_mut(words.max(1)).zip(draws) {
            for &id in *ids {
                if let Some(word) = row.get_mut(id as usize / 32) {
                    *word |= 1 << (id % 32);
                }
            }
        }
        self.seen.shared_write(&seen)
    }

    /// Draws the token of every row of `logits` `[N, V]` into `ids` and moves `positions` on.
    /// Without `samples` all draws are greedy.
    pub(crate) fn draw(
        &mut self,
        gpu: &Gpu,
        logits: &Tensor,
        (ids, positions): (&Buffer<i32>, &Buffer<i32>),
        samples: bool,
    ) -> Result<()> {
        let chunks = self.vocab.div_ceil(CHUNK);
        let grid = [chunks, self.rows, 1];
        let launch = Launch::new(grid, THREADS).overlapping();
        gpu.launch(launch, LargestLogits { draw: self.logits(logits, positions)? })?;
        if samples {
            gpu.launch(launch, ListCandidates { draw: self.logits(logits, positions)? })?;
        }
        gpu.launch(
            Launch::new([self.rows, 1, 1], DRAW_THREADS).overlapping(),
            DrawTokens {
                draw: self.logits(logits, positions)?,
                ids: ids.shared_output(),
                positions: positions.shared_output(),
                seen: self.seen.shared_output(),
            },
        )
    }

    fn logits<'a>(&'a self, logits: &'a Tensor, positions: &'a Buffer<i32>) -> Result<Logits<'a>> {
        Ok(Logits {
            logits: logits.input()?,
            positions: positions.input(),
            numbers: self.numbers.input(),
            integers: self.integers.input(),
            seen: self.seen.input(),
            group_maxima: self.group_maxima.shared_output(),
            best: self.best.shared_output(),
            candidates: self.candidates.shared_output(),
            counts: self.counts.shared_output(),
            weights: self.weights.shared_output(),
            vocab: int("V", self.vocab)?,
            chunks: int("chunks", self.vocab.div_ceil(CHUNK))?,
        })
    }
}

/// Draws a token from every row of logits and waits for it.
pub(super) fn draw_tokens(
    op: &'static str,
    gpu: &Gpu,
    logits: &Tensor,
    rows: &[(Draw<'_>, &[u32])],
) -> Result<Vec<Result<u32, SamplingError>>> {
    let mut draws = DeviceDraws::new(op, gpu, rows.len(), logits.last_dim())?;
    draws.set(rows)?;
    let positions: Vec<i32> = rows.iter().map(|(_, ids)| ids.len() as i32 - 1).collect();
    let (ids, positions) = (gpu.alloc(rows.len())?, gpu.upload(&positions)?);
    let samples = rows.iter().any(|(draw, _)| !draw.sampler.is_greedy());
    draws.draw(gpu, logits, (&ids, &positions), samples)?;
    let mut codes = vec![0; rows.len()];
    ids.read(&mut codes)?;
    let drawn = codes.into_iter().zip(rows);
    Ok(drawn.map(|(code, (_, ids))| drawn_token(code, ids.len())).collect())
}

/// The token that a step has drawn after `position` tokens, or what is wrong with its logits.
pub(crate) fn drawn_token(code: i32, position: usize) -> Result<u32, SamplingError> {
    let problem = |problem| Err(SamplingError::Logits { position, problem });
    match code {
        CODE_NOT_A_NUMBER => problem(NOT_A_NUMBER),
        CODE_INFINITE => problem(INFINITE),
        _ => u32::try_from(code).or_else(|_| problem(ALL_LOWEST)),
    }
}
