"""Block-sparse attention for PyTorch on a GPU: exact selection in PyTorch, attention by the kernels
of `fla-core`.

Without `fla-core`, or on a CPU, attention is one dense call with a mask: correct but slow. q is [B,
T, HQ, D], k and v are [B, T, H, D]; every row is one document.
"""

import torch
from torch import Tensor

from formulations import select_blocks, sparse_masked

try:
    from fla.ops.nsa.parallel import parallel_nsa_bwd, parallel_nsa_fwd

    HAS_FLA = True
except ImportError:
    HAS_FLA = False

SCORES = 1 << 28
"""Scores of one tile of the selection: larger tiles make fewer launches."""


def grouped(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q [B * H, G, T, D], k and v [B * H, 1, T, D], as the formulations want them."""
    heads = k.shape[2]
    return (
        q.unflatten(2, (heads, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1),
        k.transpose(1, 2).flatten(0, 1).unsqueeze(1),
        v.transpose(1, 2).flatten(0, 1).unsqueeze(1),
    )


compiled_select = torch.compile(select_blocks, dynamic=False)


@torch.no_grad()
def select(q: Tensor, k: Tensor, block_size: int, block_counts: int) -> Tensor:
    """Block indices [B, T, H, K], unused slots -1."""
    queries, keys, _ = grouped(q, k, k)
    rows, group, tokens, _ = queries.shape
    tile = min(tokens, max(1, SCORES // (rows * group * max(1, tokens // block_size))))
    run = compiled_select if q.is_cuda else select_blocks
    indices = run(queries, keys, block_size, block_counts, tile)
    return (
        indices.unflatten(0, (k.shape[0], k.shape[2])).transpose(1, 2).to(torch.int32).contiguous()
    )


if HAS_FLA:
    # Custom operators, so that torch.compile does not trace into them or break the graph.
    @torch.library.custom_op("ssa_peers::sparse_fwd", mutates_args=())
    def fla_forward(
        q: Tensor, k: Tensor, v: Tensor, indices: Tensor, block_size: int
    ) -> tuple[Tensor, Tensor]:
        scale = q.shape[-1] ** -0.5
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        return parallel_nsa_fwd(q, k, v, indices, indices.shape[-1], block_size, scale)

    @fla_forward.register_fake
    def _(
        q: Tensor, k: Tensor, v: Tensor, indices: Tensor, block_size: int
    ) -> tuple[Tensor, Tensor]:
        return q.new_empty(q.shape), q.new_empty(q.shape[:-1], dtype=torch.float32)

    @torch.library.custom_op("ssa_peers::sparse_bwd", mutates_args=())
    def fla_backward(
        dout: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        indices: Tensor,
        block_size: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        scale = q.shape[-1] ** -0.5
        q, k, v, dout = q.contiguous(), k.contiguous(), v.contiguous(), dout.contiguous()
        grads = parallel_nsa_bwd(
            q, k, v, out, lse, dout, indices, indices.shape[-1], block_size, scale
        )
        dq, dk, dv = (grad.to(q.dtype) for grad in grads)
        return dq, dk, dv

    @fla_backward.register_fake
    def _(
        dout: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        indices: Tensor,
        block_size: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)

    def _save(ctx, inputs, output) -> None:
        q, k, v, indices, ctx.block_size = inputs
        ctx.save_for_backward(q, k, v, *output, indices)

    def _backward(ctx, dout: Tensor, _dlse: Tensor | None):
        q, k, v, out, lse, indices = ctx.saved_tensors
        return *fla_backward(dout, q, k, v, out, lse, indices, ctx.block_size), None, None

    fla_forward.register_autograd(_backward, setup_context=_save)


def sparse_attention(q: Tensor, k: Tensor, v: Tensor, indices: Tensor, block_size: int) -> Tensor:
    """[B, T, HQ, D] over the tokens of the selected blocks."""
    if HAS_FLA and q.is_cuda:
        return fla_forward(q, k, v, indices, block_size)[0]
    queries, keys, values = grouped(q, k, v)
    rows = indices.transpose(1, 2).flatten(0, 1).long()
    out = sparse_masked(queries, keys, values, rows, block_size)
    return out.unflatten(0, (k.shape[0], k.shape[2])).permute(0, 3, 1, 2, 4).flatten(2, 3)


# Opaque to torch.compile: compiled separately, once for all layers.
@torch.library.custom_op("ssa_peers::select", mutates_args=())
def select_op(q: Tensor, k: Tensor, block_size: int, block_counts: int) -> Tensor:
    return select(q, k, block_size, block_counts)


@select_op.register_fake
def _(q: Tensor, k: Tensor, block_size: int, block_counts: int) -> Tensor:
    return q.new_empty(q.shape[0], q.shape[1], k.shape[2], block_counts, dtype=torch.int32)
