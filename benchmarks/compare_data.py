"""Prepares the same text with `ssa data prepare` and with `datasets.map` on the same cores, by
turns, and compares.

    python3 benchmarks/compare_data.py --ssa target/release/ssa --input text.jsonl.zst \
        --tokenizer tokenizer.json --eos '<|end_of_text|>' \
        --out benchmarks/results/<date>-data-<tokenizer>.json

Builds nothing. Every round runs each side once, in the same order, so that a change of the
machine's speed meets all of them. Fails unless both sides give the same tokens. Seconds of `ssa`
are those of the whole process; those of the Python sides leave out the start of Python and its
imports, while their processor time includes it.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCHMARKS / "peers"))

from machine import cpu_name  # noqa: E402 (found by the line above)

SIDES = {
    "ssa": "ssa data prepare",
    "processes": "datasets.map, a process per core",
    "threads": "datasets.map, tokenizer on all cores",
    "bare": "the tokenizer alone",
}


def cores(arguments: argparse.Namespace) -> str:
    return str(len(arguments.cores.split(",")))


def command(side: str, arguments: argparse.Namespace, directory: Path) -> list[str]:
    if side == "ssa":
        options = [
            "--tokenizer",
            arguments.tokenizer,
            "--eos-token",
            arguments.eos,
            "--threads",
            cores(arguments),
        ]
        base = [
            arguments.ssa,
            "data",
            "prepare",
            arguments.input,
            *options,
            "--output",
            directory / "shards",
        ]
    else:
        options = [
            "--tokenizer",
            arguments.tokenizer,
            "--eos",
            arguments.eos,
            "--cores",
            cores(arguments),
        ]
        options += ["--input", arguments.input, "--mode", side, "--out", directory / "report.json"]
        base = [sys.executable, BENCHMARKS / "peers/datasets_map.py", *options]
    return ["taskset", "-c", arguments.cores, *map(str, base)]


def shard_report(shards: Path) -> dict[str, Any]:
    """Number and SHA-256 of the tokens, as 32 bits each, of all shards."""
    import numpy

    manifest = json.loads((shards / "manifest.json").read_text())
    stored = "<u2" if manifest["tokenizer"]["vocab_size"] <= 1 << 16 else "<u4"
    digest, tokens = hashlib.sha256(), 0
    for shard in manifest["shards"]:
        ids = numpy.fromfile(shards / f"{shard['name']}.bin", stored)
        digest.update(ids.astype("<u4").tobytes())
        tokens += len(ids)
    text_bytes = sum(source["text_bytes"] for source in manifest["sources"])
    return {"tokens": tokens, "sha256": digest.hexdigest(), "text_bytes": text_bytes}


def run_side(side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as log:
        directory = Path(name)
        full_command = command(side, arguments, directory)
        start = time.perf_counter()
        process = subprocess.Popen(full_command, stdout=log, stderr=log)
        # wait4 instead of Popen.wait: it returns the resource usage of this child and its children.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status != 0:
            log.seek(0)
            raise SystemExit(
                f"{' '.join(full_command)} failed:\n{log.read().decode(errors='replace')}"
            )
        process_report = {
            "seconds": seconds,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_rss_bytes": usage.ru_maxrss * 1024,
        }
        if side == "ssa":
            report = shard_report(directory / "shards")
        else:
            report = json.loads((directory / "report.json").read_text())
    return {"side": side, "load_before": load, **process_report, **report}


def check(runs: list[dict[str, Any]]) -> None:
    tokens = {(run["tokens"], run["sha256"]) for run in runs if "sha256" in run}
    if len(tokens) != 1:
        raise SystemExit(f"the sides have different tokens: {tokens}")


def markdown(runs: list[dict[str, Any]]) -> str:
    """Medians over the rounds; ratios are to `ssa`."""

    def middle(side: str, field: str) -> float:
        return median(run[field] for run in runs if run["side"] == side)

    text_bytes = middle("ssa", "text_bytes")
    lines = [
        "| | seconds | MB of text / s | / ssa | processor seconds | / ssa | peak RSS, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for side in dict.fromkeys(run["side"] for run in runs):
        seconds, cpu = middle(side, "seconds"), middle(side, "cpu_seconds")
        cells = [
            SIDES[side],
            f"{seconds:.1f}",
            f"{text_bytes / seconds / 1e6:.1f}",
            f"{seconds / middle('ssa', 'seconds'):.2f}",
            f"{cpu:.1f}",
            f"{cpu / middle('ssa', 'cpu_seconds'):.2f}",
            f"{middle(side, 'peak_rss_bytes') / 1e6:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def describe(arguments: argparse.Namespace, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything needed to judge the numbers later."""
    version = subprocess.run(
        [arguments.ssa, "--version"], check=True, capture_output=True, text=True
    )
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "processors": os.cpu_count(),
        "cores": arguments.cores,
        "system": platform.platform(),
        "ssa": version.stdout.strip(),
        "python": platform.python_version(),
        "versions": next((run["versions"] for run in runs if "versions" in run), None),
        "input": {"name": arguments.input.name, "bytes": arguments.input.stat().st_size},
        "tokenizer_sha256": hashlib.sha256(arguments.tokenizer.read_bytes()).hexdigest(),
        "runs": runs,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ssa", type=Path, required=True, help="the binary, built with --release")
    parser.add_argument("--input", type=Path, required=True, help="JSON lines with a key `text`")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.json")
    parser.add_argument("--eos", required=True, help="token that ends a document")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", default="0,1", help="cores for all sides")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    for name in ("ssa", "input", "tokenizer"):
        setattr(arguments, name, getattr(arguments, name).resolve())
    if "ssa" not in arguments.sides:
        parser.error("--sides needs ssa, to which the others are compared")
    if arguments.out.exists():
        parser.error(
            f"{arguments.out} exists: recorded runs are kept; name another file with --out"
        )
    return arguments


def main() -> None:
    arguments = parse_arguments()
    runs = []
    for round_number in range(1, arguments.rounds + 1):
        for side in arguments.sides:
            run = {"round": round_number, **run_side(side, arguments)}
            print(f"round {round_number}, {side}: {run['seconds']:.1f} s", file=sys.stderr)
            runs.append(run)
    check(runs)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(describe(arguments, runs), indent=1) + "\n")
    print(markdown(runs))


if __name__ == "__main__":
    main()
