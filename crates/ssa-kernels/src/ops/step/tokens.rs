//! The tokens of a step and what happens to them at its two ends.

use half::bf16;

use crate::cuda::{
    Buffer, DEPENDENT_LAUNCH, Gpu, Input, Launch, Module, Output, Readback, constants, int, kernel,
    structs,
};
use crate::kv_cache::{DevicePages, DeviceTables, KvCache, KvShape, SequenceId};
use crate::ops::linear::LinearWeight;
use crate::ops::sampling::cuda::{DeviceDraws, drawn_token};
use crate::ops::sampling::{Draw, SamplingError};
use crate::{Device, KernelError, Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "step",
    source: include_str!("step.cu"),
    headers: &[&DEPENDENT_LAUNCH],
    constants: constants![THREADS],
    structs: structs![StepEmbedding],
    variants: &[&[]],
};

/// Threads of a block that copies a row.
const THREADS: usize = 256;

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

/// A sequence of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepSequence<'a> {
    /// Which it is. Its pages are reserved: it has been extended by the steps to come.
    pub id: SequenceId,
    /// All its tokens. The last ones, [`StepSizes::tokens_each`], are those of the step; the cache
    /// has those before them.
    pub ids: &'a [u32],
    /// How the tokens are drawn that follow each token of the step.
    pub draw: Draw<'a>,
}

/// The sizes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSizes {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each sequence that the step computes.
    pub tokens_each: usize,
    /// The most tokens of a sequence.
    pub longest: usize,
    /// Logits of a token.
    pub vocabulary: usize,
}

impl StepSizes {
    /// N, the tokens of the step.
    pub fn tokens(&self) -> usize {
        self.sequences * self.tokens_each
    }
}

/// The tokens of steps over one set of sequences.
pub struct StepTokens {
    pub(super) gpu: Gpu,
    pub(super) shape: KvShape,
    pub(super) pages: DevicePages,
    pub(super) tables: DeviceTables,
    pub(super) sizes: StepSizes,
    /// `[N]`; a number that is no token where none could be drawn.
    ids: Buffer<i32>,
    draws: DeviceDraws,
}

/// Tokens on their way from a GPU.
#[derive(Debug)]
pub struct DrawnTokens {
    ids: Readback,
    /// The number of tokens before each.
    positions: Vec<usize>,
}

impl StepTokens {
    /// Room for steps of these sizes over a cache.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if the cache is not on a GPU or a size is 0;
    /// [`KernelError::OutOfMemory`].
    pub fn new(cache: &KvCache, sizes: StepSizes) -> Result<Self> {
        const OP: &str = "StepTokens::new";
        let Device::Cuda(gpu) = cache.device() else {
            return Err(KernelError::device(OP, "cache", "a GPU", cache.device()));
        };
        let StepSizes { sequences, tokens_each, longest, vocabulary } = sizes;
        for (argument, size) in [
            ("sequences", sequences),
            ("tokens_each", tokens_each),
            ("longest", longest),
            ("vocabulary", vocabulary),
        ] {
            if size == 0 {
                return Err(KernelError::value(OP, argument, "at least 1", size));
            }
        }
        let shape = *cache.shape();
        let blocks = longest.div_ceil(shape.page_size);
        Ok(Self {
            gpu: gpu.clone(),
            shape,
            pages: cache.device_pages()?.clone(),
            tables: DeviceTables::for_steps(gpu, [sequences, tokens_each], blocks)?,
            ids: gpu.alloc(sizes.tokens())?,
            draws: DeviceDraws::new(OP, gpu, sizes.tokens(), vocabulary)?,
            sizes,
        })
    }

    /// N, the number of tokens of a step.
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether there are no tokens; never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the sequences of the next step.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if there are more or fewer sequences than these have room for, if
    /// one of them does not exist, has fewer tokens than the step computes of it, or no page for
    /// them.
    pub fn set(&self, cache: &KvCache, sequences: &[StepSequence<'_>]) -> Result<()> {
        const OP: &str = "StepTokens::set";
        let StepSizes { tokens_each, longest, .. } = self.sizes;
        if sequences.len() != self.sizes.sequences {
            let expected = self.sizes.sequences.to_string();
            return Err(KernelError::value(OP, "sequences", expected, sequences.len()));
        }
        let mut tables = Vec::with_capacity(sequences.len());
        let (mut positions, mut tokens) = (Vec::new(), Vec::new());
        let mut draws = Vec::with_capacity(self.len());
        for &StepSequence { id, ids, draw } in sequences {
            let table = cache.page_table(OP, id)?;
            let room = table.tokens().min(longest);
            if !(tokens_each..=room).contains(&ids.len()) {
                let expected = format!("{tokens_each} to {room}, the tokens of {id}");
                return Err(KernelError::value(OP, "ids", expected, ids.len()));
            }
            tables.push(table);
            for position in ids.len() - tokens_each..ids.len() {
                positions.push(position);
                tokens.push(ids[position] as i32);
                draws.push((draw, &ids[..=position]));
            }
        }
        self.tables.set(&positions, &tables)?;
        self.draws.set(&draws)?;
        self.ids.shared_write(&tokens)
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

    /// Draws the token that follows each token of the step from `logits` `[N, V]` and puts it in
    /// its place, at the next position. Without `samples` all draws are greedy.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if the logits do not have this shape.
    pub fn draw(&mut self, logits: &Tensor, samples: bool) -> Result<()> {
        check_shape("StepTokens::draw", "logits", logits, [self.len(), self.sizes.vocabulary])?;
        let Self { gpu, tables, ids, draws, .. } = self;
        draws.draw(gpu, logits, (ids, tables.positions()), samples)
    }

    /// Starts to read the tokens that the last step drew, which come after so many tokens each.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub fn drawn(&self, positions: Vec<usize>) -> Result<DrawnTokens> {
        Ok(DrawnTokens { ids: Readback::start(&self.ids, self.len())?, positions })
    }
}

impl DrawnTokens {
    /// The tokens, or what is wrong with the logits of each. Waits for the step that drew them, not
    /// for later ones.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if a step failed.
    pub fn wait(mut self) -> Result<Vec<Result<u32, SamplingError>>> {
        let bytes = self.ids.wait()?;
        let codes = bytes.as_chunks().0.iter().map(|&bytes| i32::from_ne_bytes(bytes));
        Ok(codes.zip(self.positions).map(|(code, position)| drawn_token(code, position)).collect())
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
