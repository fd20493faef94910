#!/usr/bin/env python3
"""Checks that trained checkpoints load and run in Python, under transformers 4.57 and 5.x.

    python3 tests/python/transformers/run.py --ssa target/release/ssa [--python PYTHON]

Trains a small model by each method and runs check_modeling.py on all of them under each version, on
converted models of other families, and on the logits of the released code. PyTorch and transformers
are installed into a temporary directory; with `--python`, PyTorch is that of the given Python.
Exits with 77 if packages cannot be installed, with 1 after a failure.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

TORCH = "torch==2.11.0"
# Builds without CUDA, a tenth of the size of those on PyPI.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TRANSFORMERS = ["4.57.6", "5.23.0"]
METHODS = ["full", "moba", "nsa", "ssa"]
# Models without gates: RoPE scaling, biases of q, k and v, norms of q and k.
PLAIN = ["llama_tied_llama3", "llama_yarn_mscale", "qwen2_tied", "qwen3"]
SKIPPED = 77
HERE = pathlib.Path(__file__).resolve().parent

# Two blocks of queries share three heads each; rows are longer than the budget.
MODEL = """
[model]
hidden_size = 48
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 6
num_key_value_heads = 2
head_dim = 16
block_size = 16
block_counts = 4
[data]
sequence_length = 256
[training]
steps = 30
batch_size = 2
[optimizer]
learning_rate = 4e-3
warmup_steps = 5
[evaluation]
budgets = ["16x4"]
batch_size = 2
tokens = 512
analysis_tokens = 256
"""


def pip(python, *arguments, seconds):
    """Installs a package; the reason if that fails."""
    command = [python, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile"]
    command += ["--disable-pip-version-check", "--retries", "1", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"{arguments[0]} is not installed after {seconds:.0f} s"
    if done.returncode == 0:
        return None
    errors = done.stderr.strip().splitlines() or ["pip failed"]
    return f"{arguments[0]} cannot be installed: {errors[-1]}"


def install_torch(python, seconds):
    end = time.monotonic() + seconds
    reason = pip(python, TORCH, "--index-url", CPU_INDEX, seconds=seconds)
    if reason is not None:
        reason = pip(python, TORCH, seconds=max(end - time.monotonic(), 1))
    return reason


def start_installing(pool, directory, python, seconds):
    """A Python, and futures of the reasons why its packages cannot be installed."""
    started = []
    if python is None:
        python = directory / "venv/bin/python"
        created = subprocess.run([sys.executable, "-m", "venv", directory / "venv"])
        if created.returncode != 0:
            print("skipped: this Python cannot create virtual environments")
            sys.exit(SKIPPED)
        started.append(pool.submit(install_torch, python, seconds))
    for version in TRANSFORMERS:
        package = [f"transformers=={version}", "--target", directory / version]
        started.append(pool.submit(pip, python, *package, seconds=seconds))
    return python, started


def train(ssa, directory):
    """Trains a model by each method; their checkpoints."""
    config = directory / "model.toml"
    config.write_text(MODEL)
    checkpoints = []
    for method in METHODS:
        run = directory / "runs" / method
        command = [ssa, "train", config, "--run-dir", run, "--device", "cpu", "--plain"]
        command += ["--set", f"objective.method={method}"]
        if method == "nsa":
            command += ["--set", "model.window_size=32"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"training {method} failed:\n{done.stderr}")
        checkpoints.append(run / "checkpoint")
    return checkpoints


def start_checks(python, packages, ssa, checkpoints, directory):
    """The checks under the transformers in `packages`, as a process of one thread."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(packages),
        "HF_HOME": str(directory / f"home-{packages.name}"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    golden = HERE.parents[1] / "golden"
    command = [python, HERE / "check_modeling.py", "--ssa", ssa, *checkpoints]
    command += ["--plain", *(golden / "families" / name for name in PLAIN)]
    command += ["--golden", *sorted((golden / "model").iterdir())]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ssa", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--python", type=pathlib.Path, help="a Python with PyTorch and pip")
    parser.add_argument("--seconds", type=int, default=180, help="limit of an installation")
    args = parser.parse_args()
    ssa = args.ssa.resolve()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor() as pool:
        directory = pathlib.Path(name)
        python, installing = start_installing(pool, directory, args.python, args.seconds)
        checkpoints = train(ssa, directory)
        for reason in filter(None, [each.result() for each in installing]):
            print(f"skipped: {reason}")
            sys.exit(SKIPPED)
        packages = [directory / version for version in TRANSFORMERS]
        checks = [start_checks(python, each, ssa, checkpoints, directory) for each in packages]
        for process in checks:
            print(process.communicate()[0], flush=True)
        sys.exit(any(process.returncode != 0 for process in checks))


if __name__ == "__main__":
    main()
