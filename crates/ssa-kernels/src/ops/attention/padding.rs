//! Heads of any length on a GPU.
//!
//! Kernels load heads in whole vectors and multiply them in whole steps. Other heads are copied
//! into rows that end in zeros, which add nothing to a score, an output or a gradient: exact, at
//! the price of the copies.

use super::shape::{AttentionGrads, AttentionOutput, AttentionShape};
use crate::cuda::Gpu;
use crate::{KernelError, Result, Tensor};

/// The longest head that kernels hold.
const LONGEST: usize = 256;

/// The length at which kernels with steps of `step` elements compute these heads.
///
/// # Errors
/// [`KernelError::Argument`] for heads that are too long.
pub(super) fn padded_head_dim(
    op: &'static str,
    shape: &AttentionShape,
    step: usize,
) -> Result<usize> {
    if shape.head_dim > LONGEST {
        let expected = format!("at most {LONGEST} on a GPU");
        return Err(KernelError::value(op, "head_dim", expected, shape.head_dim));
    }
    Ok(shape.head_dim.next_multiple_of(step))
}

/// The inputs of attention with padded heads.
pub(super) struct PaddedHeads<'a> {
    gpu: &'a Gpu,
    pub(super) q: Tensor,
    pub(super) k: Tensor,
    pub(super) v: Tensor,
    pub(super) shape: AttentionShape,
}

impl<'a> PaddedHeads<'a> {
    /// Copies of q, k and v, or None where kernels with steps of `step` elements take them as they
    /// are.
    ///
    /// # Errors
    /// As [`padded_head_dim`], or if the GPU has no memory left.
    pub(super) fn new(
        op: &'static str,
        gpu: &'a Gpu,
        [q, k, v]: [&Tensor; 3],
        shape: &AttentionShape,
        step: usize,
    ) -> Result<Option<Self>> {
        let head_dim = padded_head_dim(op, shape, step)?;
        if head_dim == shape.head_dim {
            return Ok(None);
        }
        let pad = |x| Tensor::with_row_len(x, gpu, head_dim);
        let shape = AttentionShape { head_dim, ..*shape };
        Ok(Some(Self { gpu, q: pad(q)?, k: pad(k)?, v: pad(v)?, shape }))
    }

    /// Sets `output` to the result of `forward` on the padded heads.
    pub(super) fn forward(
        &self,
        output: &mut AttentionOutput,
        forward: impl FnOnce(&mut AttentionOutput) -> Result<()>,
    ) -> Result<()> {
        let mut padded = AttentionOutput::for_output(&self.q, self.shape)?;
        forward(&mut padded)?;
        output.out = padded.out.with_row_len(self.gpu, output.out.last_dim())?;
        output.lse = padded.lse;
        Ok(())
    }

    /// Calls `backward` with `dout`, `output` and gradients with padded heads, which it adds to,
    /// then sets `grads` to the result.
    pub(super) fn backward(
        &self,
        dout: &Tensor,
        output: &AttentionOutput,
        grads: &mut AttentionGrads,
        backward: impl FnOnce(&Tensor, &AttentionOutput, &mut AttentionGrads) -> Result<()>,
    ) -> Result<()> {
        let pad = |x: &Tensor| x.with_row_len(self.gpu, self.shape.head_dim);
        let output = AttentionOutput { out: pad(&output.out)?, lse: output.lse.try_clone()? };
        let mut padded =
            AttentionGrads { dq: pad(&grads.dq)?, dk: pad(&grads.dk)?, dv: pad(&grads.dv)? };
        backward(&pad(dout)?, &output, &mut padded)?;
        let cut = |x: &Tensor| x.with_row_len(self.gpu, dout.last_dim());
        *grads =
            AttentionGrads { dq: cut(&padded.dq)?, dk: cut(&padded.dk)?, dv: cut(&padded.dv)? };
        Ok(())
    }
}
