"""Block selection and attention of one document, in the formulations PyTorch offers on a CPU.
Selection and the dense formulations run on a GPU too.

Axes: L tokens of the document, H key/value heads, G query heads per key/value head, D head
dimension, C blocks, K selected blocks. q is [H, G, L, D]; k and v are [H, 1, L, D]. Key/value heads
are the batch axis of `scaled_dot_product_attention`, so that masks of shape [H, 1, L, S] broadcast
over a group without copies.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SparseAttention = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
"""(q, k, v, block_indices, block_size) -> out [H, G, L, D]."""


def full_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal softmax attention: PyTorch's flash kernel, which skips the keys after each query
    tile."""
    return F.scaled_dot_product_attention(q, k.expand_as(q), v.expand_as(q), is_causal=True)


@torch.no_grad()
def select_blocks(
    q: Tensor, k: Tensor, block_size: int, block_counts: int, tile: int = 256
) -> Tensor:
    """Block indices [H, L, K], unused slots -1: the current block and the K - 1 most important
    earlier ones.

    Only complete blocks are ever scored: an incomplete one is the current block of every token that
    sees it. Tiles of queries keep the scores in the cache and leave out later blocks. Exact ties
    fall to whichever index `topk` returns; they do not occur on real inputs.
    """
    heads, _, tokens, head_dim = q.shape
    blocks = tokens // block_size
    pooled = (
        k[:, :, : blocks * block_size].unflatten(2, (blocks, block_size)).mean(3) * head_dim**-0.5
    )
    token = torch.arange(tokens, device=q.device)[:, None]
    indices = torch.full((heads, tokens, block_counts), -1, device=q.device)
    indices[..., :1] = token // block_size
    for start in range(0, tokens, tile):
        end = min(start + tile, tokens)
        complete = end // block_size
        past = token[start:end] // block_size
        block = torch.arange(complete, device=q.device)
        scores = q[:, :, start:end] @ pooled[:, :, :complete].transpose(-1, -2)
        # A row without a complete block becomes NaN and is overwritten below: it has no past block
        # either.
        scores.masked_fill_(block >= (token[start:end] + 1) // block_size, float("-inf"))
        importance = (
            scores.softmax(-1, dtype=torch.float32).sum(1).masked_fill_(block >= past, -1.0)
        )
        best = importance.topk(min(block_counts - 1, complete))
        earlier = best.indices.masked_fill(best.values < 0, -1)
        indices[:, start:end, 1 : 1 + earlier.shape[-1]] = earlier
    return indices


def block_mask(block_indices: Tensor, blocks: int) -> Tensor:
    """Selected blocks as booleans [H, L, C]."""
    heads, tokens, _ = block_indices.shape
    # Unused slots go to an extra last column that is dropped.
    mask = torch.zeros(heads, tokens, blocks + 1, dtype=torch.bool, device=block_indices.device)
    return mask.scatter_(-1, block_indices.where(block_indices >= 0, blocks), True)[..., :blocks]


def sparse_masked(
    q: Tensor, k: Tensor, v: Tensor, block_indices: Tensor, block_size: int
) -> Tensor:
    """One dense call with a boolean mask [H, 1, L, L]: every product is computed, memory O(L^2)."""
    return sparse_tiled(q, k, v, block_indices, block_size, tile=q.shape[2])


def sparse_tiled(
    q: Tensor, k: Tensor, v: Tensor, block_indices: Tensor, block_size: int, tile: int = 256
) -> Tensor:
    """A masked dense call per tile of queries over the keys up to the tile's end: about half the
    products."""
    tokens = q.shape[2]
    selected = block_mask(block_indices, -(-tokens // block_size))
    out = []
    for start in range(0, tokens, tile):
        end = min(start + tile, tokens)
        mask = selected[:, start:end].repeat_interleave(block_size, dim=-1)[:, None, :, :end]
        mask[..., start:].logical_and_(
            torch.ones(end - start, end - start, dtype=torch.bool, device=q.device).tril()
        )
        queries = q[:, :, start:end]
        shape = (*q.shape[:2], end, q.shape[3])
        keys, values = k[:, :, :end].expand(shape), v[:, :, :end].expand(shape)
        out.append(F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask))
    return torch.cat(out, dim=2)


def sparse_gathered(
    q: Tensor, k: Tensor, v: Tensor, block_indices: Tensor, block_size: int, chunk: int = 256
) -> Tensor:
    """Copies each token's keys and values together, then one small product per token: the fewest
    products.

    Works on `chunk` tokens at a time, which bounds the copies of a forward pass without gradients.
    """
    heads, group, tokens, head_dim = q.shape
    slots = block_indices.shape[-1]
    blocks = -(-tokens // block_size)
    padding = (0, 0, 0, blocks * block_size - tokens)
    key_blocks, value_blocks = (
        F.pad(x[:, 0], padding).reshape(heads * blocks, block_size * head_dim) for x in (k, v)
    )
    rows = block_indices.clamp(min=0) + blocks * torch.arange(heads)[:, None, None]
    key_token = block_indices[..., None] * block_size + torch.arange(block_size)
    visible = (block_indices[..., None] >= 0) & (key_token <= torch.arange(tokens)[:, None, None])
    out = []
    for start in range(0, tokens, chunk):
        part = slice(start, min(start + chunk, tokens))
        size = heads * (part.stop - part.start)
        gathered = (size, 1, slots * block_size, head_dim)
        keys, values = (
            F.embedding(rows[:, part].flatten(), x).view(gathered)
            for x in (key_blocks, value_blocks)
        )
        queries = q[:, :, part].transpose(1, 2).reshape(size, 1, group, head_dim)
        mask = visible[:, part].reshape(size, 1, 1, slots * block_size)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        out.append(attended.view(heads, -1, group, head_dim).transpose(1, 2))
    return torch.cat(out, dim=2)
