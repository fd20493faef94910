"""Times full and block-sparse causal attention in PyTorch on the CPU, by length.

    python3 attention.py --out attention.json
    python3 attention.py --lengths 512 1024 --threads 1

One row, f32, inputs N(0, 1): random selections, which have no locality. Sparse attention and
select_blocks are timed separately; the table shows their sum. A formulation whose call exceeds
--max-seconds is not tried at greater lengths.

FlexAttention under torch.compile (2.15) has no backward pass on a CPU and is not among the
formulations: its forward took 1.2 to 1.4 times as long as scaled_dot_product_attention for full
attention, and 2 to 7 times as long as the best formulation here for sparse attention (lengths 2048
and 8192, CPU time of one thread).
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from formulations import full_attention, select_blocks, sparse_gathered, sparse_masked, sparse_tiled
from machine import cpu_name

SPARSE = {"masked": sparse_masked, "tiled": sparse_tiled, "gathered": sparse_gathered}


class Stopwatch:
    """Repeats calls for a while and remembers which formulations have become too slow."""

    def __init__(self, seconds: float, max_seconds: float) -> None:
        self.seconds = seconds
        self.max_seconds = max_seconds
        self.too_slow: set[tuple[str, str]] = set()

    def measure(self, name: str, passes: str, call: Callable[[], object]) -> dict[str, Any] | None:
        if (name, passes) in self.too_slow:
            return None
        call()
        times: list[float] = []
        while len(times) < 3 or sum(times) < self.seconds:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
            if times[-1] > self.max_seconds:
                self.too_slow.add((name, passes))
                break
        return {
            "name": name,
            "pass": passes,
            "seconds": median(times),
            "fastest": min(times),
            "repeats": len(times),
        }


def measure_length(
    tokens: int, arguments: argparse.Namespace, stopwatch: Stopwatch
) -> list[dict[str, Any]]:
    heads, group = arguments.kv_heads, arguments.query_heads // arguments.kv_heads
    generator = torch.Generator().manual_seed(tokens)
    q, dout = (
        torch.randn(heads, group, tokens, arguments.head_dim, generator=generator) for _ in range(2)
    )
    k, v = (
        torch.randn(heads, 1, tokens, arguments.head_dim, generator=generator) for _ in range(2)
    )
    inputs = [x.requires_grad_() for x in (q, k, v)]
    select = partial(select_blocks, q, k, arguments.block_size, arguments.block_counts)
    indices = select()
    calls: dict[str, Callable[[], Tensor]] = {"full": partial(full_attention, q, k, v)}
    for name, attention in SPARSE.items():
        calls[f"sparse_{name}"] = partial(attention, q, k, v, indices, arguments.block_size)

    def forward(call: Callable[[], Tensor]) -> None:
        with torch.no_grad():
            call()

    def forward_backward(call: Callable[[], Tensor]) -> None:
        torch.autograd.grad(call(), inputs, dout)

    rows = [stopwatch.measure("select_blocks", "forward", select)]
    for name, call in calls.items():
        rows.append(stopwatch.measure(name, "forward", partial(forward, call)))
        rows.append(stopwatch.measure(name, "forward_backward", partial(forward_backward, call)))
    return [{"tokens": tokens, **row} for row in rows if row is not None]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Milliseconds by length; sparse is the fastest formulation and the selection."""
    lines = [
        "| T | pass | full, ms | sparse, ms | (of which selection) | formulation |",
        "|---|---|---|---|---|---|",
    ]
    for tokens in sorted({row["tokens"] for row in rows}):
        at_length = [row for row in rows if row["tokens"] == tokens]
        selection = next(row["seconds"] for row in at_length if row["name"] == "select_blocks")
        for passes in ("forward", "forward_backward"):
            timed = {row["name"]: row["seconds"] for row in at_length if row["pass"] == passes}
            full = f"{timed['full'] * 1e3:.1f}" if "full" in timed else "-"
            sparse = {
                name: seconds for name, seconds in timed.items() if name.startswith("sparse_")
            }
            best = min(sparse, key=sparse.__getitem__, default=None)
            total = "-" if best is None else f"{(sparse[best] + selection) * 1e3:.1f}"
            name = "-" if best is None else best.removeprefix("sparse_")
            lines.append(
                f"| {tokens} | {passes} | {full} | {total} | {selection * 1e3:.1f} | {name} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192, 16384]
    )
    parser.add_argument("--query-heads", type=int, default=16)
    parser.add_argument("--kv-heads", type=int, default=1)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--block-counts", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="repeat each call for about this long"
    )
    parser.add_argument("--max-seconds", type=float, default=30.0)
    parser.add_argument("--out", type=Path, help="write all rows here as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stopwatch = Stopwatch(arguments.seconds, arguments.max_seconds)
    rows = [
        row
        for tokens in sorted(arguments.lengths)
        for row in measure_length(tokens, arguments, stopwatch)
    ]
    if arguments.out:
        settings = {key: value for key, value in vars(arguments).items() if key != "out"}
        report = {"torch": torch.__version__, "cpu": cpu_name(), **settings, "rows": rows}
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(markdown(rows))


if __name__ == "__main__":
    main()
