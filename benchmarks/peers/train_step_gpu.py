"""Times a training step of the published models in PyTorch on a GPU.

    python3 train_step_gpu.py --preset ssa-1b --out step-torch.json

A step is forward, backward, clipping and fused AdamW on random ids, one document per row. Layers
are compiled, full attention is cuDNN's, sparse attention fla-core's after an exact selection, the
loss Liger's or chunked. `bf16` keeps weights, gradients and moments in bf16; `f32` keeps all of
them in f32 and multiplies in bf16, as `ssa train` does. For ssa both streams are timed; a run draws
each half of the time.
"""

import argparse
import gc
import time
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

import model_gpu
import sparse_gpu
from gpu_report import Report
from gpu_timing import synchronize
from model_gpu import PRESETS, SsaModel
from torch_ssa import IGNORE_INDEX, Method, Stream, streams_of

ALPHA = 10.0
STATES = {"bf16": torch.bfloat16, "f32": torch.float32}


def use_cudnn_attention() -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_math_sdp(False)


def batch(arguments: argparse.Namespace, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(vocabulary, (arguments.batch, arguments.tokens), device=arguments.device)
    labels = ids.roll(-1, 1)
    labels[:, -1] = IGNORE_INDEX
    return ids, labels


class Run:
    """A model with its optimizer."""

    def __init__(self, arguments: argparse.Namespace, state: str) -> None:
        self.arguments = arguments
        torch.manual_seed(1)
        cuda = arguments.device == "cuda"
        activations = torch.bfloat16 if cuda else torch.float32
        with torch.device(arguments.device):
            self.model = SsaModel(PRESETS[arguments.preset], activations).to(
                STATES[state] if cuda else torch.float32
            )
        if arguments.compile:
            for layer in self.model.layers:
                layer.compile(dynamic=False)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )
        self.batches = [batch(arguments, self.model.config.vocab_size) for _ in range(4)]
        self.rotary = self.model.rotary(arguments.tokens)

    def step(self, index: int, streams: tuple[Stream, ...]) -> torch.Tensor:
        ids, labels = self.batches[index % len(self.batches)]
        cross_entropy, alignment = self.model(ids, labels, self.rotary, streams)
        loss = cross_entropy + ALPHA * alignment
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def time(self, streams: tuple[Stream, ...]) -> dict[str, Any]:
        start = time.perf_counter()
        losses = [self.step(index, streams) for index in range(self.arguments.warmup)]
        synchronize()
        warm = time.perf_counter()
        if self.arguments.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for index in range(self.arguments.steps):
            begin = time.perf_counter()
            losses.append(self.step(index, streams))
            synchronize()
            seconds.append(time.perf_counter() - begin)
        middle = median(seconds)
        return {
            "ms": middle * 1e3,
            "fastest": min(seconds) * 1e3,
            "steps": len(seconds),
            "tokens_per_second": self.arguments.batch * self.arguments.tokens / middle,
            "peak_bytes": torch.cuda.max_memory_allocated()
            if self.arguments.device == "cuda"
            else None,
            "warm_up_seconds": warm - start,
            "losses": [float(losses[0]), float(losses[-1])],
        }


def measure(arguments: argparse.Namespace, method: Method, state: str, report: Report) -> None:
    run = Run(arguments, state)
    streams: dict[Method, tuple[Stream, ...]] = {
        "full": ("full",),
        "moba": ("sparse",),
        "ssa": ("full", "sparse"),
    }
    for stream in streams[method]:
        row: dict[str, Any] = {"method": method, "stream": stream, "state": state}
        try:
            row |= run.time(streams_of(method, stream))
        except torch.OutOfMemoryError:
            row["error"] = "out of memory"
        report.add(row)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--preset", choices=PRESETS, default="ssa-1b")
    parser.add_argument(
        "--methods", nargs="+", choices=["full", "moba", "ssa"], default=["full", "ssa"]
    )
    parser.add_argument("--states", nargs="+", choices=STATES, default=["bf16", "f32"])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--device", choices=["cuda", "cpu"], default=default)
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=default == "cuda"
    )
    parser.add_argument("--out", type=Path, help="write all rows here as JSON")
    arguments = parser.parse_args()
    use_cudnn_attention() if arguments.device == "cuda" else None
    torch.set_float32_matmul_precision("high")
    report = Report(arguments, {"fla": sparse_gpu.HAS_FLA, "liger": model_gpu.HAS_LIGER})
    for state, method in product(arguments.states, arguments.methods):
        measure(arguments, method, state, report)
        # Free the memory for the model of the next run.
        gc.collect()
        torch.cuda.empty_cache() if arguments.device == "cuda" else None


if __name__ == "__main__":
    main()
