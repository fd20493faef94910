"""Times full and block-sparse causal attention in PyTorch on a GPU, by length.

    python3 attention_gpu.py --out attention-torch.json

bf16, inputs N(0, 1). Full attention is scaled_dot_product_attention with one backend forced:
FlashAttention-2 and cuDNN, with keys and values repeated for every query head or shared
(enable_gqa), whichever is faster. Sparse attention is the one of sparse_gpu.py and, with fla-core,
also its own way: pooling, compression attention for the softmax sums, top-k and selected attention
(block_counts at most half of block_size, rounded to powers of two). `local` selections are like
those of trained models: see local_indices. The backward is timed with its forward.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import sparse_gpu
from gpu_report import Report
from gpu_timing import input_sets, measure

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
Call = Callable[[Tensor, Tensor, Tensor], Tensor]


def sdpa(backend: SDPBackend, shared: bool, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[B, T, HQ, D] of full causal attention."""
    if not shared:
        group = q.shape[2] // k.shape[2]
        k, v = (x.repeat_interleave(group, dim=2) for x in (k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared).transpose(
            1, 2
        )


def select_and_attend(
    block_size: int, block_counts: int, q: Tensor, k: Tensor, v: Tensor
) -> Tensor:
    indices = sparse_gpu.select(q.detach(), k.detach(), block_size, block_counts)
    return sparse_gpu.sparse_attention(q, k, v, indices, block_size)


def fla_selection(block_size: int, block_counts: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Selection and attention of fla-core; its compression attention is computed for the softmax
    sums alone."""
    from fla.ops.nsa.compression import parallel_nsa_compression
    from fla.ops.nsa.parallel import parallel_nsa_topk
    from fla.ops.utils.pooling import mean_pooling

    tokens, scale = q.shape[1], q.shape[-1] ** -0.5
    with torch.no_grad():
        pooled = mean_pooling(k, block_size)
        _, lse = parallel_nsa_compression(q, pooled, pooled, tokens, block_size, scale)
        indices = parallel_nsa_topk(q, pooled, tokens, lse, block_counts, block_size, scale)
    return sparse_gpu.sparse_attention(q, k, v, indices, block_size)


def local_indices(
    tokens: int, heads: int, block_size: int, block_counts: int, device: str
) -> Tensor:
    """Selections [1, T, H, K] that neighbors share as in trained models, like those of `ssa bench
    attention`: three quarters of the blocks from as many last ones as are selected at all, anew for
    each token; the others for three tokens each from a pool drawn anew every 64 tokens."""
    near, stay, run, choice = -(-3 * block_counts // 4), 3, 64, 4 * block_counts
    far = block_counts - near
    generator = torch.Generator(device).manual_seed(2)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    token = torch.arange(tokens, device=device)
    current = (token // block_size)[:, None, None].expand(tokens, heads, 1)
    recent = current - torch.arange(1, block_counts, device=device)
    chosen = uniform(tokens, heads, block_counts - 1).masked_fill_(recent < 0, -1.0).topk(near - 1)
    recent = recent.gather(-1, chosen.indices)
    first_recent = (token // block_size + 1 - block_counts).clamp(min=0)
    pool = (uniform(-(-tokens // run), heads, choice) * first_recent[::run, None, None]).long()
    draws = (uniform((tokens + far) // stay + 1, heads, far) * choice).long()
    slot = torch.arange(far, device=device)
    draw = draws[(token[:, None] + slot) // stay, :, slot].transpose(1, 2)
    distant = pool[token // run].gather(-1, draw)
    distant = distant.where(distant < first_recent[:, None, None], -1)
    indices = torch.cat([current, recent, distant], -1).sort(-1, descending=True).values
    indices[..., 1:][indices[..., 1:] == indices[..., :-1]] = -1
    return indices[None].to(torch.int32).contiguous()


def passes(call: Call, sets: list[list[Tensor]]) -> dict[str, Any]:
    """Forward, and forward with backward; or why it does not run."""

    def forward(inputs: list[Tensor]) -> None:
        with torch.no_grad():
            call(*inputs[:3])

    def both(inputs: list[Tensor]) -> None:
        torch.autograd.grad(call(*inputs[:3]), inputs[:3], inputs[3])

    try:
        return {
            "forward": measure([partial(forward, inputs) for inputs in sets]),
            "forward_backward": measure([partial(both, inputs) for inputs in sets]),
        }
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return {"error": str(error).splitlines()[0][:200]}


def calls_of(arguments: argparse.Namespace, tokens: int) -> dict[str, Call]:
    calls: dict[str, Call] = {}
    for name, backend in BACKENDS.items():
        for shared in (False, True):
            calls[f"full {name} {'shared' if shared else 'repeated'}"] = partial(
                sdpa, backend, shared
            )
    device = arguments.device
    for budget in arguments.budgets:
        block_size, block_counts = (int(number) for number in budget.split("x"))
        calls[f"select + sparse {budget}"] = partial(select_and_attend, block_size, block_counts)
        if sparse_gpu.HAS_FLA:
            calls[f"fla select + sparse {budget}"] = partial(
                fla_selection, block_size, block_counts
            )
        local = local_indices(tokens, arguments.kv_heads, block_size, block_counts, device)
        calls[f"sparse {budget} local"] = partial(
            lambda indices, size, q, k, v: sparse_gpu.sparse_attention(q, k, v, indices, size),
            local,
            block_size,
        )
    return calls


def measure_length(tokens: int, arguments: argparse.Namespace, report: Report) -> None:
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    generator = torch.Generator(arguments.device).manual_seed(tokens)
    heads = [arguments.query_heads, arguments.kv_heads, arguments.kv_heads, arguments.query_heads]
    shapes = [(1, tokens, count, arguments.head_dim) for count in heads]
    size = sum(2 * tokens * count * arguments.head_dim for count in heads)

    def tensor(shape: tuple[int, ...], place: int) -> Tensor:
        values = torch.randn(shape, generator=generator, device=arguments.device).to(dtype)
        return values.requires_grad_(place < 3)

    sets = [
        [tensor(shape, place) for place, shape in enumerate(shapes)]
        for _ in range(input_sets(size))
    ]
    for name, call in calls_of(arguments, tokens).items():
        report.add({"tokens": tokens, "name": name, **passes(call, sets)})


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| T | attention | forward, ms | forward + backward, ms |", "|---|---|---|---|"]
    for row in rows:
        cells = (
            [row["error"], "-"]
            if "error" in row
            else [f"{row[name]['ms']:.2f}" for name in ("forward", "forward_backward")]
        )
        lines.append(f"| {row['tokens']} | {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192, 32768])
    parser.add_argument("--budgets", nargs="+", default=["16x16", "64x16"])
    parser.add_argument("--query-heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--device", choices=["cuda", "cpu"], default=default)
    parser.add_argument("--out", type=Path, help="write all rows here as JSON")
    arguments = parser.parse_args()
    report = Report(arguments, {"fla": sparse_gpu.HAS_FLA})
    for tokens in sorted(arguments.lengths):
        measure_length(tokens, arguments, report)
    print(markdown(report.rows))


if __name__ == "__main__":
    main()
