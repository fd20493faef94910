"""Trains the demo configuration in PyTorch on the CPU and reports time, memory and loss as JSON.

    python3 train_demo.py --config ../../configs/demo.toml --steps 30 --out torch.json

Takes the TOML file of `ssa train`. Differences from it: the stream draw, the order of rows and the
initial weights come from other random generators, nothing is held out, and alignment is always
SmoothL1 on gated outputs in both directions. Methods: ssa, moba, full.
"""

import argparse
import json
import math
import os
import random
import resource
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

import formulations
from demo_data import VOCABULARY, Row, pack, read_documents
from machine import cpu_name
from torch_ssa import (
    IGNORE_INDEX,
    Documents,
    Method,
    ModelConfig,
    SsaModel,
    Stream,
    losses,
    streams_of,
)

SNAPSHOT = Path(__file__).parents[2] / "crates/ssa-data/corpus/snapshot.jsonl.gz"
SPARSE = {
    "masked": formulations.sparse_masked,
    "tiled": formulations.sparse_tiled,
    "gathered": formulations.sparse_gathered,
}
MODEL_DEFAULTS = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "block_size": 16,
    "block_counts": 4,
}


@dataclass(frozen=True)
class Recipe:
    """The part of the configuration that is not the model, with the defaults of `ssa train`."""

    seed: int = 0
    sequence_length: int = 1024
    method: Method = "ssa"
    alpha: float = 10.0
    full_ratio: float = 0.5
    batch_size: int = 8
    micro_batch_size: int | None = None
    learning_rate: float = 1e-3
    min_learning_rate: float = 0.0
    warmup_fraction: float = 0.01
    warmup_steps: int | None = None
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0

    @classmethod
    def from_toml(cls, sections: dict[str, Any]) -> "Recipe":
        values = {
            key: value
            for section in ("run", "data", "objective", "training", "optimizer")
            for key, value in sections.get(section, {}).items()
            if key in cls.__dataclass_fields__
        }
        return cls(**values)

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Linear warm-up, then half a cosine; steps count from 0."""
        warmup = (
            round(self.warmup_fraction * steps) if self.warmup_steps is None else self.warmup_steps
        )
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        return self.min_learning_rate + (self.learning_rate - self.min_learning_rate) * cosine

    def stream_at(self, step: int) -> Stream:
        return (
            "full" if random.Random(f"{self.seed}/{step}").random() < self.full_ratio else "sparse"
        )


class Trainer:
    def __init__(self, config: ModelConfig, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.model = SsaModel(config)
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
        ]
        betas = (recipe.beta1, recipe.beta2)
        self.optimizer = torch.optim.AdamW(groups, betas=betas, eps=recipe.eps, fused=True)

    def step(self, rows: list[Row], stream: Stream, learning_rate: float) -> dict[str, float]:
        """One optimizer step over all micro-batches of `rows`."""
        model, recipe = self.model, self.recipe
        targets = sum(int((row.labels != IGNORE_INDEX).sum()) for row in rows)
        tokens = len(rows) * recipe.sequence_length
        size = recipe.micro_batch_size or recipe.batch_size
        totals = torch.zeros(2)
        for start in range(0, len(rows), size):
            micro = rows[start : start + size]
            documents = Documents([length for row in micro for length in row.document_lengths])
            output = model(
                torch.cat([row.ids for row in micro]), documents, streams_of(recipe.method, stream)
            )
            labels = torch.cat([row.labels for row in micro])
            cross_entropy, alignment = losses(output, labels, model.config, targets, tokens)
            (cross_entropy + recipe.alpha * alignment).backward()
            totals += torch.stack([cross_entropy.detach(), alignment.detach()])
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        cross_entropy, alignment = totals.tolist()
        loss = cross_entropy + recipe.alpha * alignment
        return {
            "loss": loss,
            "cross_entropy": cross_entropy,
            "alignment": alignment,
            "tokens": tokens,
        }


def peak_rss() -> int:
    """Bytes; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument(
        "--data", type=Path, default=SNAPSHOT, help="text or JSON lines (default: demo corpus)"
    )
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--skip", type=int, default=3, help="first steps excluded from the medians")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--sparse", choices=SPARSE, default="gathered", help="formulation of sparse attention"
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile everything except attention"
    )
    parser.add_argument(
        "--out", type=Path, help="write the JSON report here (default: standard output)"
    )
    arguments = parser.parse_args()
    if arguments.steps <= arguments.skip:
        parser.error("--steps must exceed --skip")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    sections = tomllib.loads(arguments.config.read_text())
    recipe = Recipe.from_toml(sections)
    model_values = MODEL_DEFAULTS | sections.get("model", {})
    config = ModelConfig.from_dict(
        model_values, sparse_attention=SPARSE[arguments.sparse], compiled=arguments.compile
    )
    rss_before = peak_rss()
    rows = pack(read_documents(arguments.data), recipe.sequence_length, recipe.seed)
    trainer = Trainer(config, recipe)

    steps: list[dict[str, Any]] = []
    for step in range(arguments.steps):
        batch = [rows[(step * recipe.batch_size + i) % len(rows)] for i in range(recipe.batch_size)]
        stream = recipe.stream_at(step)
        start = time.perf_counter()
        measured = trainer.step(batch, stream, recipe.learning_rate_at(step, arguments.steps))
        seconds = time.perf_counter() - start
        rate = measured["tokens"] / seconds
        steps.append(
            {
                "step": step + 1,
                "stream": stream,
                **measured,
                "seconds": seconds,
                "tokens_per_second": rate,
            }
        )

    counted = steps[arguments.skip :]
    report = {
        "median_seconds": median(row["seconds"] for row in counted),
        "median_tokens_per_second": median(row["tokens_per_second"] for row in counted),
        "peak_rss_bytes": peak_rss(),
        "rss_after_import_bytes": rss_before,
        "final_loss": steps[-1]["loss"],
        "final_cross_entropy": steps[-1]["cross_entropy"],
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "cores": sorted(os.sched_getaffinity(0)),
        "sparse": arguments.sparse,
        "compiled": arguments.compile,
        "steps": steps,
    }
    text = json.dumps(report, indent=1)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
