//! Linear map and cross-entropy on a GPU, one chunk of tokens at a time.

use half::bf16;

use super::{CrossEntropy, IGNORE_INDEX, PredictionScore};
use crate::cuda::elementwise::sum;
use crate::cuda::matmul::{Rows, matmul};
use crate::cuda::{Buffer, Gpu, Input, Launch, Module, Output, constants, int, kernel, structs};
use crate::host_memory::zeros;
use crate::{DType, Device, Result, Scalar, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "cross_entropy",
    source: include_str!("cross_entropy.cu"),
    headers: &[],
    constants: constants![THREADS, IGNORE_INDEX],
    structs: structs![CrossEntropyFwdBwd, CrossEntropyFwd, ComparePredictions],
    variants: &[&[]],
};

kernel! {
    /// Losses of a chunk of tokens, whose logits become their gradient.
    "cross_entropy_fwd_bwd" in MODULE:
    struct CrossEntropyFwdBwd<'a> {
        logits: Output<'a, bf16>,
        /// Of all tokens, as the results.
        labels: Input<'a, i32>,
        loss: Output<'a, f64>,
        lse_square: Output<'a, f64>,
        /// The first token of the chunk.
        first: i64,
        /// Distance of the rows of logits.
        stride: i64,
        vocab: i32,
        /// Pieces of 16 bytes of a row that shared memory keeps.
        cached: i32,
        grad_scale: f32,
        z_loss: f32,
    }
}

kernel! {
    /// Losses of a chunk of tokens.
    "cross_entropy_fwd" in MODULE:
    struct CrossEntropyFwd<'a> {
        logits: Input<'a, f32>,
        labels: Input<'a, i32>,
        loss: Output<'a, f64>,
        lse_square: Output<'a, f64>,
        first: i64,
        stride: i64,
        vocab: i32,
    }
}

kernel! {
    /// Losses of a prediction q of a chunk of tokens, and its divergence from the prediction p;
    /// without q, those of p.
    "compare_predictions" in MODULE:
    struct ComparePredictions<'a> {
        p: Input<'a, f32>,
        q: Option<Input<'a, f32>>,
        labels: Input<'a, i32>,
        loss: Output<'a, f64>,
        divergence: Output<'a, f64>,
        first: i64,
        vocab: i32,
    }
}

/// Bytes of the logits of a chunk. Every chunk reads and writes the gradient of the whole weight
/// once more, so chunks are as large as memory allows: 4096 tokens of a vocabulary of 128k.
const CHUNK_BYTES: usize = 1 << 30;

/// Threads of a block.
const THREADS: usize = 1024;

/// Shared memory that the kernel uses in addition to the row it keeps, rounded up.
const STATIC_SHARED: usize = 1024;

/// Where the gradients of `scale * (sum of losses + z_loss * sum of squared log-normalizers)` are
/// added.
pub(super) struct Gradients<'a> {
    pub(super) scale: f32,
    pub(super) z_loss: f32,
    pub(super) dx: &'a mut Tensor,
    pub(super) dweight: &'a mut Tensor,
}

/// What every token contributes, `f64` `[N]` each; zero where ignored.
pub(super) struct Losses {
    gpu: Gpu,
    loss: Buffer<f64>,
    lse_square: Buffer<f64>,
}

impl Losses {
    /// Zeros.
    fn new(gpu: &Gpu, tokens: usize) -> Result<Self> {
        let [mut loss, mut lse_square] = [gpu.alloc(tokens)?, gpu.alloc(tokens)?];
        loss.fill_zero()?;
        lse_square.fill_zero()?;
        Ok(Self { gpu: gpu.clone(), loss, lse_square })
    }

    /// Their sums, which the host does not wait for.
    pub(super) fn summary(&self, targets: usize) -> Result<CrossEntropy> {
        Ok(CrossEntropy {
            loss_sum: Scalar::on_gpu(sum(&self.gpu, &self.loss, 1.0)?),
            lse_square_sum: Scalar::on_gpu(sum(&self.gpu, &self.lse_square, 1.0)?),
            targets,
        })
    }

    /// The loss of every token.
    pub(super) fn to_vec(&self) -> Result<Vec<f32>> {
        let mut losses = zeros(self.loss.len())?;
        self.loss.read(&mut losses)?;
        Ok(losses.into_iter().map(|loss| loss as f32).collect())
    }
}

/// The loss of every token. With gradients the logits are `bf16` and become the gradient in place;
/// without, they are `f32`.
pub(super) fn losses(
    gpu: &Gpu,
    x: &Tensor,
    weight: &Tensor,
    labels: &[i32],
    mut gradients: Option<Gradients<'_>>,
) -> Result<Losses> {
    let (vocab, hidden) = (weight.rows(), weight.last_dim());
    let mut losses = Losses::new(gpu, labels.len())?;
    let labels_on_gpu = gpu.upload(labels)?;
    let dtype = if gradients.is_some() { DType::Bf16 } else { DType::F32 };
    let tokens = chunk_tokens(vocab, dtype).min(labels.len().max(1));
    let mut logits = Tensor::for_output_on(&Device::Cuda(gpu.clone()), dtype, [tokens, vocab])?;
    for (chunk, chunk_labels) in labels.chunks(tokens).enumerate() {
        if chunk_labels.iter().all(|&label| label == IGNORE_INDEX) {
            continue;
        }
        let (first, count) = (chunk * tokens, chunk_labels.len());
        let x = x.matrix(rows(first, [count, hidden]))?;
        let weight = weight.matrix([vocab, hidden])?;
        let product = logits.output_matrix([count, vocab])?;
        matmul(gpu, product, 1.0, x, weight.t())?;
        let factors = gradients.as_ref().map(|gradients| (gradients.scale, gradients.z_loss));
        let chunk = Chunk { first, count, vocab };
        cross_entropy(gpu, &mut logits, chunk, &labels_on_gpu, &mut losses, factors)?;
        if let Some(Gradients { dx, dweight, .. }) = &mut gradients {
            let dlogits = logits.matrix([count, vocab])?;
            let dx = dx.gradient_rows(rows(first, [count, hidden]))?;
            matmul(gpu, dx, 1.0, dlogits, weight)?;
            matmul(gpu, dweight.gradient_matrix([vocab, hidden])?, 1.0, dlogits.t(), x)?;
        }
    }
    Ok(losses)
}

/// Rows of a matrix from row `first` on.
fn rows(first: usize, sizes: [usize; 2]) -> Rows {
    Rows { offset: first * sizes[1], sizes, stride: sizes[1] }
}

/// Losses of several predictions and their divergences from the first.
pub(super) fn compare(
    gpu: &Gpu,
    xs: &[&Tensor],
    weight: &Tensor,
    labels: &[i32],
) -> Result<Vec<PredictionScore>> {
    let (vocab, hidden) = (weight.rows(), weight.last_dim());
    let labels_on_gpu = gpu.upload(labels)?;
    let tokens = chunk_tokens(vocab, DType::F32).min(labels.len().max(1));
    let device = Device::Cuda(gpu.clone());
    let logits = || Tensor::for_output_on(&device, DType::F32, [tokens, vocab]);
    let [mut first, mut others] = [logits()?, logits()?];
    let mut scores =
        xs.iter().map(|_| Scores::new(gpu, labels.len())).collect::<Result<Vec<_>>>()?;
    for (chunk, labels) in labels.chunks(tokens).enumerate() {
        let (start, count) = (chunk * tokens, labels.len());
        for (index, (x, scores)) in xs.iter().zip(&mut scores).enumerate() {
            let logits = if index == 0 { &mut first } else { &mut others };
            let x = x.matrix(rows(start, [count, hidden]))?;
            let product = logits.output_matrix([count, vocab])?;
            matmul(gpu, product, 1.0, x, weight.matrix([vocab, hidden])?.t())?;
            gpu.launch(
                Launch::new([count, 1, 1], THREADS),
                ComparePredictions {
                    p: first.input()?,
                    q: if index == 0 { None } else { Some(others.input()?) },
                    labels: labels_on_gpu.input(),
                    loss: scores.loss.output(),
                    divergence: scores.divergence.output(),
                    first: start as i64,
                    vocab: int("vocab", vocab)?,
                },
            )?;
        }
    }
    scores.iter().map(|scores| scores.sums(gpu)).collect()
}

/// What every token adds to a [`PredictionScore`], `f64` `[N]` each.
struct Scores {
    loss: Buffer<f64>,
    divergence: Buffer<f64>,
}

impl Scores {
    fn new(gpu: &Gpu, tokens: usize) -> Result<Self> {
        Ok(Self { loss: gpu.alloc(tokens)?, divergence: gpu.alloc(tokens)? })
    }

    fn sums(&self, gpu: &Gpu) -> Result<PredictionScore> {
        Ok(PredictionScore {
            loss_sum: Scalar::on_gpu(sum(gpu, &self.loss, 1.0)?),
            divergence_sum: Scalar::on_gpu(sum(gpu, &self.divergence, 1.0)?),
        })
    }
}

/// Bytes of the logits of a chunk in training, and of the labels and results of all tokens.
pub(super) fn workspace_bytes(tokens: usize, vocab: usize) -> usize {
    let logits = chunk_tokens(vocab, DType::Bf16).min(tokens).saturating_mul(vocab);
    let of_tokens = tokens.saturating_mul(size_of::<i32>() + 2 * size_of::<f64>());
    logits.saturating_mul(DType::Bf16.size()).saturating_add(of_tokens)
}

/// Tokens of a chunk for a vocabulary: whole tiles of the matrix products.
pub(super) fn chunk_tokens(vocab: usize, dtype: DType) -> usize {
    let tokens = CHUNK_BYTES / vocab.saturating_mul(dtype.size());
    if tokens >= 256 { tokens / 256 * 256 } else { 256 }
}

/// Consecutive tokens whose logits are in memory.
#[derive(Clone, Copy)]
struct Chunk {
    first: usize,
    count: usize,
    vocab: usize,
}

/// Losses of a chunk; with factors (scale and z-loss), the logits become the gradient.
fn cross_entropy(
    gpu: &Gpu,
    logits: &mut Tensor,
    chunk: Chunk,
    labels: &Buffer<i32>,
    losses: &mut Losses,
    gradient_factors: Option<(f32, f32)>,
) -> Result<()> {
    let Chunk { first, count, vocab } = chunk;
    let launch = Launch::new([count, 1, 1], THREADS);
    let (labels, first, stride) = (labels.input(), first as i64, vocab as i64);
    let (loss, lse_square) = (losses.loss.output(), losses.lse_square.output());
    let Some((grad_scale, z_loss)) = gradient_factors else {
        let (logits, vocab) = (logits.input()?, int("vocab", vocab)?);
        let parameters = CrossEntropyFwd { logits, labels, loss, lse_square, first, stride, vocab };
        return gpu.launch(launch, parameters);
    };
    // Pieces of 16 bytes that a block keeps between its two passes over a row.
    let cached = (vocab / 8).min(gpu.properties().shared_memory.saturating_sub(STATIC_SHARED) / 16);
    gpu.launch(
        launch.shared(16 * cached),
        CrossEntropyFwdBwd {
            logits: logits.in_place()?,
            labels,
            loss,
            lse_square,
            first,
            stride,
            vocab: int("vocab", vocab)?,
            cached: int("cached", cached)?,
            grad_scale,
            z_loss,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_whole_tiles() {
        assert_eq!(chunk_tokens(128_256, DType::Bf16), 4096);
        assert_eq!(chunk_tokens(128_256, DType::F32), 2048);
        assert_eq!(chunk_tokens(10_000_000, DType::F32), 256);
    }
}
