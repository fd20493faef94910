"""Trains a configuration with every method and several seeds, and compares the results.

    python3 benchmarks/compare_methods.py --ssa target/release/ssa --runs runs/compare
        [--config configs/demo.toml] [--seeds 3] [--threads 2] [--at-once 1] [--set KEY=VALUE ...]

All methods train with the same settings but `objective.method`. Seeds differ in their initial
weights, in the order of the data and in the text that is held out, so methods are compared within
a seed. A run that is finished is not repeated. Prints the means over the seeds and writes
`comparison.json` with every run's own numbers to the directory of the runs.
"""

import argparse
import json
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

METHODS = ("full", "moba", "nsa", "ssa")


def train(options: argparse.Namespace, method: str, seed: int) -> dict:
    directory = options.runs / f"{method}-{seed}"
    if not (directory / "summary.json").exists():
        command = [options.ssa, "train", options.config, "--run-dir", directory]
        command += ["--device", options.device, "--threads", options.threads, "--plain"]
        settings = [f"objective.method={method}", f"run.seed={seed}", *options.set]
        command += [word for setting in settings for word in ("--set", setting)]
        with open(options.runs / f"{method}-{seed}.log", "w") as log:
            subprocess.run(list(map(str, command)), stdout=log, stderr=log, check=True)
    return json.loads((directory / "summary.json").read_text())


def row(result: dict) -> str:
    return result["budget"] or "full"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ssa", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.toml"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of each run")
    parser.add_argument("--at-once", type=int, default=1, help="runs that train at the same time")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)

    runs = [(method, seed) for seed in range(options.seeds) for method in METHODS]
    with ThreadPoolExecutor(options.at_once) as pool:
        summaries = list(pool.map(lambda run: train(options, *run), runs))
    found = dict(zip(runs, summaries))

    first = summaries[0]
    facts = ("version", "commit", "machine", "device", "parameters", "steps", "train_tokens")
    comparison = {key: first[key] for key in facts}
    comparison["runs"] = [
        {
            "method": method,
            "seed": seed,
            "train_seconds": summary["train_seconds"],
            "results": summary["evaluation"]["results"],
        }
        for (method, seed), summary in found.items()
    ]
    (options.runs / "comparison.json").write_text(json.dumps(comparison, indent=1) + "\n")

    def mean(method: str, mode: str, metric: str) -> str:
        values = [
            result[metric]
            for seed in range(options.seeds)
            for result in found[method, seed]["evaluation"]["results"]
            if row(result) == mode and result[metric] is not None
        ]
        return f"{statistics.mean(values):.4f}" if values else ""

    modes = [row(result) for result in first["evaluation"]["results"]]
    for metric in ("bits_per_byte", "kl_full_sparse", "attention_sparsity"):
        print(f"\n{metric}, mean of {options.seeds} seeds")
        print("| method | " + " | ".join(modes) + " |")
        print("|---" * (len(modes) + 1) + "|")
        for method in METHODS:
            means = [mean(method, mode, metric) for mode in modes]
            print(f"| {method} | " + " | ".join(means) + " |")


if __name__ == "__main__":
    main()
