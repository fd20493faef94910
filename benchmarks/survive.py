"""Kills a training run at random times and compares its result with an uninterrupted run.

    python3 benchmarks/survive.py --ssa target/release/ssa --device cuda --kills 12 --out
    survive.json

The same command is started again after every SIGKILL, SIGTERM and SIGINT, until the run ends. With
--move the run also changes between --device and the CPU; then only the steps before the first move
can be equal, and the losses of the rest are compared. On Linux; fails unless the weights are equal.
"""

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers.machine import cpu_name
from run_story import compare, entries

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
SAVED = 5
QUIET = [
    "--plain",
    "--no-eval",
    "--set",
    "monitoring.probe_every=0",
    "--set",
    "monitoring.validate_every=0",
]


def command(arguments: argparse.Namespace, run: Path, device: str) -> list[str]:
    settings = [
        f"training.steps={arguments.steps}",
        f"checkpoint.every_steps={arguments.save_every}",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    return [
        str(arguments.ssa),
        "train",
        str(arguments.config),
        "--device",
        device,
        "--run-dir",
        str(run),
        *QUIET,
        *words,
    ]


def steps(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    return entries(path) if path.exists() else []


def digest(run: Path) -> str:
    return hashlib.sha256((run / "checkpoint/model.safetensors").read_bytes()).hexdigest()


def fail(what: str, log: Path) -> None:
    sys.exit(f"{what}; the end of its output:\n{log.read_text()[-2000:]}")


def straight(arguments: argparse.Namespace, run: Path) -> None:
    log = run.with_suffix(".log")
    with log.open("w") as out:
        if subprocess.run(
            command(arguments, run, arguments.device), stdout=out, stderr=out
        ).returncode:
            fail("the straight run fails", log)


def interrupted(arguments: argparse.Namespace, run: Path) -> list[dict]:
    """Goes on until the run ends; how it was stopped on the way."""
    draw = random.Random(arguments.seed)
    log = run.with_suffix(".log")
    # Kills spread evenly over the run, with random offsets and at random times within a step.
    distance = arguments.steps / (arguments.kills + 1)
    targets = [int((index + draw.uniform(0.5, 1.5)) * distance) for index in range(arguments.kills)]
    stops: list[dict] = []
    while True:
        target = targets[len(stops)] if len(stops) < len(targets) else None
        name = draw.choice(list(SIGNALS))
        device = ["cpu", arguments.device][len(stops) % 2] if arguments.move else arguments.device
        with log.open("a") as out:
            program = subprocess.Popen(command(arguments, run, device), stdout=out, stderr=out)
            while target is not None and program.poll() is None and len(steps(run)) < target:
                time.sleep(0.01)
            if target is not None and program.poll() is None:
                time.sleep(draw.uniform(0, 0.05))
                program.send_signal(SIGNALS[name])
            code = program.wait()
        if code == 0:
            return stops
        if target is None or code not in (SAVED, -SIGNALS[name]):
            fail(f"the program ends by itself with {code}", log)
        stops.append(
            {"signal": name, "exit": code, "device": device, "steps_logged": len(steps(run))}
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ssa", type=Path, default=Path("target/release/ssa"))
    parser.add_argument("--config", type=Path, default=Path("configs/demo.toml"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument(
        "--save-every", type=int, default=20, help="steps between checkpoints"
    )
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the kill times and signals")
    parser.add_argument("--move", action="store_true", help="alternate between CPU and --device")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as place:
        alone, killed = Path(place) / "alone", Path(place) / "killed"
        start = time.monotonic()
        straight(arguments, alone)
        middle = time.monotonic()
        stops = interrupted(arguments, killed)
        seconds = time.monotonic() - middle
        record = {
            "device": arguments.device,
            "cpu": cpu_name(),
            "config": str(arguments.config),
            "steps": arguments.steps,
            "seconds": {"alone": middle - start, "interrupted": seconds},
            "stops": stops,
            "resumed_from": [
                entry.get("step")
                for entry in entries(killed / "journal.jsonl")
                if entry["event"] == "resumed"
            ],
            "metrics": compare(steps(killed), steps(alone)),
            "sha256": {"alone": digest(alone), "interrupted": digest(killed)},
            "last_losses": {run.name: steps(run)[-1]["loss"] for run in (alone, killed)},
        }
    print(json.dumps(record, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    if not arguments.move and record["sha256"]["alone"] != record["sha256"]["interrupted"]:
        sys.exit("the weights differ")


if __name__ == "__main__":
    main()
