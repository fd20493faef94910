#!/usr/bin/env python3
"""Kills random ranks of a run at random moments and compares what is left.

    python3 tests/python/kill_ranks.py --ssa target/release/ssa [--kills 40] [--seed 0]

A run without interruption on one process comes first. Then the same run is started again and again
on 1, 2 or 4 ranks, and a random rank is killed (SIGKILL) or stopped (SIGSTOP, one in eight) after a
random time. Every time all processes must end within the limit, with exit code 6 and the name of
the lost rank unless rank 0 itself was killed. In the end weights, moments and metrics must be those
of the first run.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """
[model]
hidden_size = 32
intermediate_size = 2304
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 8
block_size = 8
block_counts = 2
[data]
sequence_length = 64
[training]
steps = {steps}
groups = 4
batch_size = 8
micro_batch_size = 1
[checkpoint]
every_steps = 5
[monitoring]
validate_every = 25
validation_tokens = 256
"""
TIMES = [
    "seconds", "rank_seconds", "rank_wait_seconds", "slow_ranks", "reduce_seconds",
    "update_seconds", "tokens_per_second", "tflops",
]  # fmt: skip
RANK_LOST = 6
# A rank is lost after 20 s without a heartbeat; rank 0 then waits 6 s for the ranks it started.
LIMIT = 30


def command(args, directory, name, ranks):
    return [
        args.ssa, "train", str(directory / "config.toml"), "--no-eval", "--plain",
        "--run-dir", str(directory / name), "--ranks", str(ranks),
    ]  # fmt: skip


def results(run, steps):
    files = ["checkpoint/model.safetensors", f"checkpoints/step-{steps}/optimizer.safetensors"]
    sums = {file: hashlib.sha256((run / file).read_bytes()).hexdigest() for file in files}
    metrics = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        step = json.loads(line)
        metrics.append({key: value for key, value in step.items() if key not in TIMES})
    return sums, metrics


def children(process):
    try:
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def kill_one(process, ranks, generator, window):
    """Kills or stops a rank; returns it and how, or None if the run has ended before."""
    time.sleep(generator.uniform(0.0, window))
    others = children(process)
    rank = generator.randrange(ranks)
    if process.poll() is not None or len(others) != ranks - 1:
        return None
    pid = process.pid if rank == 0 else others[rank - 1]
    how = "STOP" if rank > 0 and generator.random() < 1 / 8 else "KILL"
    os.kill(pid, signal.SIGSTOP if how == "STOP" else signal.SIGKILL)
    return rank, how, others


def check_end(process, rank, how, others):
    """Waits for the end of all ranks; returns the seconds it took."""
    start = time.monotonic()
    _, errors = process.communicate(timeout=LIMIT)
    while any(is_alive(pid) for pid in others):
        assert time.monotonic() - start < LIMIT, f"a rank outlives {how} of rank {rank}"
        time.sleep(0.01)
    if rank > 0:
        assert process.returncode == RANK_LOST, f"exit code {process.returncode}:\n{errors}"
        assert f"rank {rank} on " in errors, errors
    return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ssa", default="target/release/ssa")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.ssa = str(Path(args.ssa).resolve())
    generator = random.Random(args.seed)
    directory = Path(tempfile.mkdtemp(prefix="kill-ranks-"))
    (directory / "config.toml").write_text(CONFIG.format(steps=args.steps))
    start = time.monotonic()
    subprocess.run(command(args, directory, "straight", 1), check=True, stderr=subprocess.DEVNULL)
    window = time.monotonic() - start
    expected = results(directory / "straight", args.steps)
    kills, runs, slowest = 0, 0, {"KILL": 0.0, "STOP": 0.0}
    while kills < args.kills:
        ranks = generator.choice([1, 2, 4])
        process = subprocess.Popen(
            command(args, directory, "run", ranks), stderr=subprocess.PIPE, text=True
        )
        killed = kill_one(process, ranks, generator, window)
        if killed:
            rank, how, others = killed
            slowest[how] = max(slowest[how], check_end(process, rank, how, others))
            kills += 1
            print(f"{kills}: {how} of rank {rank} of {ranks}", flush=True)
            continue
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert results(directory / "run", args.steps) == expected, "the results differ"
        shutil.rmtree(directory / "run")
        runs += 1
    done = subprocess.run(command(args, directory, "run", 2), stderr=subprocess.DEVNULL)
    assert done.returncode == 0 and results(directory / "run", args.steps) == expected
    shutil.rmtree(directory)
    seconds = ", ".join(f"{how} {longest:.1f} s" for how, longest in slowest.items())
    print(f"{kills} kills in {runs + 1} runs: nothing lost; all ranks ended within: {seconds}")


if __name__ == "__main__":
    sys.exit(main())
