//! Linear map and cross-entropy on a GPU, one chunk of tokens at a time.

use super::{CrossEntropy, IGNORE_INDEX, PredictionScore};
use crate::cuda::elementwise::sum;
use crate::cuda::matmul::{Matrix, MatrixMut, matmul};
use crate::cuda::{Buffer, Gpu, Module};
use crate::{DType, Device, Result, Tensor};

pub(crate) static MODULE: Module =
    Module { name: "cross_entropy", source: include_str!("cross_entropy.cu"), variants: &[&[]] };

/// Bytes of the logits of a chunk. Every chunk reads and writes the gradient of the whole weight
/// once more, so chunks are as large as memory bears: 4096 tokens of a vocabulary of 128k.
const CHUNK_BYTES: usize = 1 << 30;

/// Threads of a block, as in the source.
const THREADS: usize = 1024;

/// Shared memory that the kernel uses besides the row it keeps, rounded up.
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
    tokens: usize,
    loss: Buffer,
    lse_square: Buffer,
}

impl Losses {
    /// Zeros.
    fn new(gpu: &Gpu, tokens: usize) -> Result<Self> {
        let [mut loss, mut lse_square] = [gpu.alloc::<f64>(tokens)?, gpu.alloc::<f64>(tokens)?];
        loss.fill_bytes(0)?;
        lse_square.fill_bytes(0)?;
        Ok(Self { gpu: gpu.clone(), tokens, loss, lse_square })
    }

    /// Their sums, which nobody waits for.
    pub(super) fn summary(&self, targets: usize) -> Result<CrossEntropy> {
        Ok(CrossEntropy {
            loss_sum: sum(&self.gpu, &self.loss, self.tokens, 1.0)?,
            lse_square_sum: sum(&self.gpu, &self.lse_square, self.tokens, 1.0)?,
            targets,
        })
    }

    /// The loss of every token.
    pub(super) fn to_vec(&self) -> Result<Vec<f32>> {
        let mut losses = vec![0.0_f64; self.tokens];
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
        let x = Matrix::with_row_stride(x, first * hidden, [count, hidden], hidden)?;
        let weight = Matrix::new(weight, [vocab, hidden])?;
        matmul(gpu, MatrixMut::output(&mut logits, [count, vocab])?, 1.0, x, weight.t())?;
        let factors = gradients.as_ref().map(|gradients| (gradients.scale, gradients.z_loss));
        cross_entropy(
            gpu,
            &mut logits,
            [count, vocab],
            &labels_on_gpu,
            first,
            &mut losses,
            factors,
        )?;
        if let Some(Gradients { dx, dweight, .. }) = &mut gradients {
            let dlogits = Matrix::with_row_stride(&logits, 0, [count, vocab], vocab)?;
            let dx = MatrixMut::accumulate_rows(dx, first * hidden, [count, hidden], hidden)?;
            matmul(gpu, dx, 1.0, dlogits, weight)?;
            matmul(gpu, MatrixMut::accumulate(dweight, [vocab, hidden])?, 1.0, dlogits.t(), x)?;
        }
    }
    Ok(losses)
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
    let kernel = gpu.kernel(&MODULE, "compare_predictions", &[])?;
    for (chunk, labels) in labels.chunks(tokens).enumerate() {
        let (start, count) = (chunk * tokens, labels.len());
        for (index, (x, scores)) in xs.iter().zip(&mut scores).enumerate() {
            let logits = if index == 0 { &mut first } else { &mut others };
            let x = Matrix::with_row_stride(x, start * hidden, [count, hidden], hidden)?;
            let product = MatrixMut::output(logits, [count, vocab])?;
            matmul(gpu, product, 1.0, x, Matrix::new(weight, [vocab, hidden])?.t())?;
            let launch = kernel.launch([count, 1, 1], THREADS).input(&first);
            let launch = if index == 0 { launch.null() } else { launch.input(&others) };
            let launch = launch.i32(vocab).buffer(&labels_on_gpu).i64(start);
            launch.buffer_mut(&mut scores.loss).buffer_mut(&mut scores.divergence).run()?;
        }
    }
    scores.iter().map(|scores| scores.sums(gpu, labels.len())).collect()
}

/// What every token adds to a [`PredictionScore`], `f64` `[N]` each.
struct Scores {
    loss: Buffer,
    divergence: Buffer,
}

impl Scores {
    fn new(gpu: &Gpu, tokens: usize) -> Result<Self> {
        Ok(Self { loss: gpu.alloc::<f64>(tokens)?, divergence: gpu.alloc::<f64>(tokens)? })
    }

    fn sums(&self, gpu: &Gpu, tokens: usize) -> Result<PredictionScore> {
        Ok(PredictionScore {
            loss_sum: sum(gpu, &self.loss, tokens, 1.0)?,
            divergence_sum: sum(gpu, &self.divergence, tokens, 1.0)?,
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

/// Losses of the chunk that begins with token `first`; with factors (scale and z-loss), the logits
/// become the gradient.
fn cross_entropy(
    gpu: &Gpu,
    logits: &mut Tensor,
    [rows, vocab]: [usize; 2],
    labels: &Buffer,
    first: usize,
    losses: &mut Losses,
    gradient_factors: Option<(f32, f32)>,
) -> Result<()> {
    let Some((scale, z_loss)) = gradient_factors else {
        let kernel = gpu.kernel(&MODULE, "cross_entropy_fwd", &[])?;
        let launch = kernel.launch([rows, 1, 1], THREADS).input(logits).i64(vocab).i32(vocab);
        let launch = launch.buffer(labels).i64(first).buffer_mut(&mut losses.loss);
        return launch.buffer_mut(&mut losses.lse_square).run();
    };
    // Pieces of 16 bytes that a block keeps between its two passes over a row.
    let cached = (vocab / 8).min(gpu.properties().shared_memory.saturating_sub(STATIC_SHARED) / 16);
    let kernel = gpu.kernel(&MODULE, "cross_entropy_fwd_bwd", &[])?;
    let launch = kernel.launch([rows, 1, 1], THREADS).shared(16 * cached);
    let launch =
        launch.in_place(logits).i64(vocab).i32(vocab).buffer(labels).f32(scale).f32(z_loss);
    let launch = launch.i32(cached).i64(first).buffer_mut(&mut losses.loss);
    launch.buffer_mut(&mut losses.lse_square).run()
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
