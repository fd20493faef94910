"""Trains the same configuration with `ssa` and with PyTorch, alternating on the same cores, and
compares.

    python3 benchmarks/compare_cpu.py --ssa target/release/ssa

Builds nothing. Every round runs each side once, in the same order, so that a change of the
machine's speed meets all of them. Writes all runs to benchmarks/results/<date>-cpu-demo.json and
prints a table of medians.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
REPOSITORY = BENCHMARKS.parent
sys.path.insert(0, str(BENCHMARKS / "peers"))

from machine import cpu_name  # noqa: E402 (found by the line above)

SIDES = {
    "ssa": "ssa",
    "torch": "PyTorch, eager",
    "torch_compile": "PyTorch, compiled but for attention",
}
STEP_FIELDS = ("step", "seconds", "loss", "cross_entropy", "alignment", "tokens")


def threads(arguments: argparse.Namespace) -> int:
    return len(arguments.cores.split(","))


def command(side: str, arguments: argparse.Namespace, directory: Path) -> list[str]:
    steps = str(arguments.steps)
    if side == "ssa":
        binary = str(arguments.ssa.resolve())
        # A run this short is within the configuration's warm-up; PyTorch's side truncates it the
        # same way.
        options = ["--set", f"training.steps={steps}", "--set", f"optimizer.warmup_steps={steps}"]
        options += ["--run-dir", str(directory / "run"), "--no-eval", "--device", "cpu"]
        base = [binary, "train", str(arguments.config), *options]
    else:
        script = str(BENCHMARKS / "peers/train_demo.py")
        options = [
            "--steps",
            steps,
            "--skip",
            str(arguments.skip),
            "--threads",
            str(threads(arguments)),
        ]
        base = [sys.executable, script, "--config", str(arguments.config), *options]
        base += ["--out", str(directory / "report.json")]
        base += ["--compile"] if side == "torch_compile" else []
    data = ["--data", str(arguments.data)] if arguments.data else []
    return ["taskset", "-c", arguments.cores, *base, *data]


def run_side(side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One training run: its steps, peak memory and the load of the machine when it began."""
    count = str(threads(arguments))
    environment = os.environ | {"RAYON_NUM_THREADS": count, "OMP_NUM_THREADS": count}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as log:
        directory = Path(name)
        full_command = command(side, arguments, directory)
        process = subprocess.Popen(
            full_command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log
        )
        # wait4 instead of Popen.wait: it returns the resource usage of this child.
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            log.seek(0)
            raise SystemExit(
                f"{' '.join(full_command)} failed:\n{log.read().decode(errors='replace')}"
            )
        if side == "ssa":
            lines = (directory / "run/metrics.jsonl").read_text().splitlines()
            report: dict[str, Any] = {"steps": [json.loads(line) for line in lines]}
        else:
            report = json.loads((directory / "report.json").read_text())
    steps = [{field: step[field] for field in STEP_FIELDS} for step in report.pop("steps")]
    counted = steps[arguments.skip :]
    return {
        "side": side,
        "load_before": load,
        "median_seconds": median(step["seconds"] for step in counted),
        "tokens_per_second": median(step["tokens"] / step["seconds"] for step in counted),
        "peak_rss_bytes": usage.ru_maxrss * 1024,
        "final_cross_entropy": steps[-1]["cross_entropy"],
        "torch": report.get("torch"),
        "sparse": report.get("sparse"),
        "steps": steps,
    }


def output_of(*words: str) -> str:
    return subprocess.run(
        words, cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.strip()


def describe(arguments: argparse.Namespace, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything needed to judge the numbers later."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "processors": os.cpu_count(),
        "cores": arguments.cores,
        "system": platform.platform(),
        "ssa": output_of(str(arguments.ssa.resolve()), "--version"),
        "python": platform.python_version(),
        "torch": next((run["torch"] for run in runs if run["torch"]), None),
        "config": arguments.config.read_text(),
        "steps": arguments.steps,
        "skipped_steps": arguments.skip,
        "runs": runs,
    }


def markdown(runs: list[dict[str, Any]]) -> str:
    """Medians over the rounds; the ratio is the step time over that of `ssa`."""

    def middle(side: str, field: str) -> float:
        return median(run[field] for run in runs if run["side"] == side)

    lines = [
        "| | step, s | tok/s | step / ssa step | peak RSS, MB | last cross-entropy |",
        "|---|---|---|---|---|---|",
    ]
    for side in dict.fromkeys(run["side"] for run in runs):
        seconds = middle(side, "median_seconds")
        cells = [
            SIDES[side],
            f"{seconds:.3f}",
            f"{middle(side, 'tokens_per_second'):,.0f}",
            f"{seconds / middle('ssa', 'median_seconds'):.2f}",
            f"{middle(side, 'peak_rss_bytes') / 1e6:,.0f}",
            f"{middle(side, 'final_cross_entropy'):.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ssa", type=Path, required=True, help="the binary, built with --release")
    parser.add_argument("--config", type=Path, default=REPOSITORY / "configs/demo.toml")
    parser.add_argument("--data", type=Path, help="text for both sides (default: the demo corpus)")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--skip", type=int, default=5, help="first steps of each run excluded from the medians"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", default="0,1", help="cores for both sides, one thread each")
    parser.add_argument(
        "--no-compile", action="store_true", help="skip the side with torch.compile"
    )
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/<date>-cpu-demo.json")
    arguments = parser.parse_args()
    if arguments.steps <= arguments.skip:
        parser.error("--steps must exceed --skip")
    arguments.config = arguments.config.resolve()
    arguments.data = arguments.data and arguments.data.resolve()
    arguments.out = (
        arguments.out or BENCHMARKS / f"results/{datetime.now(UTC):%Y-%m-%d}-cpu-demo.json"
    )
    if arguments.out.exists():
        parser.error(
            f"{arguments.out} exists: recorded runs are kept; name another file with --out"
        )
    return arguments


def main() -> None:
    arguments = parse_arguments()
    sides = [side for side in SIDES if not (arguments.no_compile and side == "torch_compile")]
    runs = []
    for round_number in range(1, arguments.rounds + 1):
        for side in sides:
            run = {"round": round_number, **run_side(side, arguments)}
            print(
                f"round {round_number}, {side}: {run['median_seconds']:.3f} s a step",
                file=sys.stderr,
            )
            runs.append(run)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(describe(arguments, runs), indent=1) + "\n")
    print(markdown(runs))


if __name__ == "__main__":
    main()
