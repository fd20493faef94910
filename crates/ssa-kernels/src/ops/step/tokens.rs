//! The tokens of a step and what happens to them at its two ends.

use half::bf16;

use crate::cuda::{
    Buffer, DEPENDENT_LAUNCH, Gpu, Input, Launch, Module, Output, constants, int, kernel, structs,
};
use crate::kv_cache::{DevicePages, DeviceTables, KvCache, KvShape, SequenceId};
use crate::ops::linear::LinearWeight;
use crate::{Device, KernelError, Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "step",
    source: include_str!("step.cu"),
    headers: &[&DEPENDENT_LAUNCH],
    constants: constants![THREADS, CHOICE_THREADS, NOT_A_NUMBER],
    structs: structs![StepEmbedding, StepGreedy],
    variants: &[&[]],
};

/// Threads of a block that copies a row.
const THREADS: usize = 256;
/// Threads of a block that goes through a vocabulary.
const CHOICE_THREADS: usize = 1024;
/// In place of a token: a logit is not a number.
const NOT_A_NUMBER: i32 = -1;

kernel! {
    /// Gathers rows of the embedding.
    "step_embedding" in MODULE:
    struct StepEmbedding<'a> {
        ids: Input<'a, i32>,
        weight: Input<'a, bf16>,
        x: Output<'a, bf16>,
        hidden: i32,
    }
}

kernel! {
    /// Chooses the token of the largest logit.
    "step_greedy" in MODULE:
    struct StepGreedy<'a> {
        logits: Input<'a, f32>,
        ids: Output<'a, i32>,
        positions: Output<'a, i32>,
        first_positions: Input<'a, i32>,
        history: Output<'a, i32>,
        vocab: i32,
        history_steps: i32,
    }
}

/// A sequence of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSequence {
    /// Which it is. Its pages are reserved: it has been extended by the steps to come.
    pub id: SequenceId,
    /// The position of the token of the step.
    pub position: usize,
    /// The token.
    pub token: u32,
}

/// The tokens of steps over one set of sequences.
pub struct StepTokens {
    pub(super) gpu: Gpu,
    pub(super) shape: KvShape,
    pub(super) pages: DevicePages,
    pub(super) tables: DeviceTables,
    ids: Buffer<i32>,
    first_positions: Buffer<i32>,
    /// Chosen tokens, `[steps, N]`.
    history: Buffer<i32>,
    history_steps: usize,
    /// The most tokens of a sequence.
    pub(super) most_tokens: usize,
}

impl StepTokens {
    /// Room for steps over `sequences` sequences of up to `tokens` tokens in a cache, and for the
    /// tokens that up to `history` steps choose.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if the cache is not on a GPU or a size is 0;
    /// [`KernelError::OutOfMemory`].
    pub fn new(cache: &KvCache, sequences: usize, tokens: usize, history: usize) -> Result<Self> {
        const OP: &str = "StepTokens::new";
        let Device::Cuda(gpu) = cache.device() else {
            return Err(KernelError::device(OP, "cache", "a GPU", cache.device()));
        };
        let sizes = [("sequences", sequences), ("tokens", tokens), ("history", history)];
        if let Some(&(argument, size)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(KernelError::value(OP, argument, "at least 1", size));
        }
        let shape = *cache.shape();
        let blocks = tokens.div_ceil(shape.page_size);
        Ok(Self {
            gpu: gpu.clone(),
            shape,
            pages: cache.device_pages()?.clone(),
            tables: DeviceTables::for_steps(gpu, sequences, blocks)?,
            ids: gpu.alloc(sequences)?,
            first_positions: gpu.alloc(sequences)?,
            history: gpu.alloc(sequences * history)?,
            history_steps: history,
            most_tokens: tokens,
        })
    }

    /// The number of sequences.
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether there are no sequences; never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the sequences and tokens of the next step and forgets the tokens chosen before.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if there are more or fewer sequences than these have room for, if
    /// one of them does not exist, or has no page for its token.
    pub fn set(&self, cache: &KvCache, sequences: &[StepSequence]) -> Result<()> {
        const OP: &str = "StepTokens::set";
        if sequences.len() != self.len() {
            return Err(KernelError::value(
                OP,
                "sequences",
                self.len().to_string(),
                sequences.len(),
            ));
        }
        let mut tables = Vec::with_capacity(sequences.len());
        for &StepSequence { id, position, .. } in sequences {
            let table = cache.page_table(OP, id)?;
            let tokens = table.tokens().min(self.most_tokens);
            if position >= tokens {
                let expected = format!("less than {tokens}, the tokens of {id}");
                return Err(KernelError::value(OP, "position", expected, position));
            }
            tables.push(table);
        }
        let positions: Vec<usize> = sequences.iter().map(|sequence| sequence.position).collect();
        self.tables.set(&positions, &tables)?;
        let positions: Vec<i32> = positions.into_iter().map(|position| position as i32).collect();
        self.first_positions.shared_write(&positions)?;
        let ids: Vec<i32> = sequences.iter().map(|sequence| sequence.token as i32).collect();
        self.ids.shared_write(&ids)
    }

    /// Writes the rows of the first matrix of `weight` for the tokens of the step to `x`
    /// `[N, hidden]`.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if `x` or `weight` does not fit.
    pub fn embed(&self, weight: &LinearWeight, x: &mut Tensor) -> Result<()> {
        const OP: &str = "StepTokens::embed";
        check_shape(OP, "x", x, [self.len(), weight.inputs()])?;
        self.gpu.launch(
            Launch::new([self.len(), 1, 1], THREADS).overlapping(),
            StepEmbedding {
                ids: self.ids.input(),
                weight: weight.matrix(OP)?.input()?,
                x: x.output()?,
                hidden: int("hidden", weight.inputs())?,
            },
        )
    }

    /// Makes the token of the largest of the `logits` `[N, V]` of each sequence, of equal ones the
    /// lowest, its token at the next position.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if the logits do not have this shape.
    pub fn choose_greedy(&mut self, logits: &Tensor) -> Result<()> {
        const OP: &str = "StepTokens::choose_greedy";
        check_shape(OP, "logits", logits, [self.len(), logits.last_dim()])?;
        let sequences = self.len();
        self.gpu.launch(
            Launch::new([sequences, 1, 1], CHOICE_THREADS).overlapping(),
            StepGreedy {
                logits: logits.input()?,
                ids: self.ids.output(),
                positions: self.tables.positions_mut().output(),
                first_positions: self.first_positions.input(),
                history: self.history.output(),
                vocab: int("V", logits.last_dim())?,
                history_steps: int("history", self.history_steps)?,
            },
        )
    }

    /// The tokens that the last `steps` steps chose since they were [set](Self::set), `[steps][N]`;
    /// `None` where a logit was not a number. Waits for them.
    ///
    /// # Errors
    /// [`KernelError::Argument`] for more steps than there is room for, [`KernelError::Cuda`] if a
    /// step failed.
    pub fn chosen(&self, steps: usize) -> Result<Vec<Vec<Option<u32>>>> {
        if steps > self.history_steps {
            let expected = format!("at most {}", self.history_steps);
            return Err(KernelError::value("StepTokens::chosen", "steps", expected, steps));
        }
        let mut tokens = vec![0; steps * self.len()];
        self.history.read(&mut tokens)?;
        let rows = tokens.chunks_exact(self.len());
        Ok(rows.map(|row| row.iter().map(|&token| u32::try_from(token).ok()).collect()).collect())
    }
}

/// Refuses a tensor of another shape.
pub(super) fn check_shape(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    shape: [usize; 2],
) -> Result<()> {
    if [tensor.rows(), tensor.last_dim()] == shape {
        return Ok(());
    }
    Err(KernelError::shape(op, argument, format!("{shape:?}"), tensor.shape()))
}
