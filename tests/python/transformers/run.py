#!/usr/bin/env python3
"""Checks that trained checkpoints load and run in Python, under transformers 4.57 and 5.x.

    python3 tests/python/transformers/run.py --ssa target/release/ssa [--python PYTHON]

Trains a small model by each method, converts models with biases and with norms of heads, and runs
check_modeling.py on all of them under each version, and on the logits of the released code. PyTorch
and transformers are installed into a temporary directory; with `--python`, PyTorch is that of the
given Python. Exits with 77 if packages cannot be installed, with 1 after a failure.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

TORCH = "torch==2.11.0"
# Builds without CUDA, a tenth of the size of those on PyPI.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TRANSFORMERS = ["4.57.6", "5.23.0"]
METHODS = ["full", "moba", "nsa", "ssa"]
FAMILIES = ["qwen2_tied", "qwen3"]
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


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def pip(python, *arguments, seconds):
    """Runs `pip install`; the reason if that fails."""
    command = [python, "-m", "pip", "install", "--quiet", "--no-input", "--retries", "1"]
    command += ["--disable-pip-version-check", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"not installed after {seconds} s"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or ["pip failed"])[-1]


def python_with_torch(directory, seconds):
    venv = directory / "venv"
    if subprocess.run([sys.executable, "-m", "venv", venv]).returncode != 0:
        skip("this Python cannot create virtual environments")
    python = venv / "bin/python"
    end = time.monotonic() + seconds
    if pip(python, TORCH, "--index-url", CPU_INDEX, seconds=seconds) is not None:
        left = end - time.monotonic()
        reason = pip(python, TORCH, seconds=max(left, 1))
        if reason is not None:
            skip(f"PyTorch cannot be installed: {reason}")
    return python


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


def convert(ssa, directory):
    """Converts plain models; the results."""
    converted = [directory / "converted" / family for family in FAMILIES]
    for family, to in zip(FAMILIES, converted):
        plain = HERE.parents[1] / "golden/families" / family
        command = [ssa, "convert", "--from", plain, "--to", to]
        command += ["--block-size", "4", "--block-counts", "3"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"converting {family} failed:\n{done.stderr}")
    return converted


def start_checks(python, packages, ssa, checkpoints, directory):
    """The checks under the transformers in `packages`, as a process of one thread."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(packages),
        "HF_HOME": str(directory / f"home-{packages.name}"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    golden = sorted((HERE.parents[1] / "golden/model").iterdir())
    command = [python, HERE / "check_modeling.py", "--ssa", ssa, *checkpoints, "--golden", *golden]
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
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        python = args.python or python_with_torch(directory, args.seconds)
        packages = [directory / version for version in TRANSFORMERS]
        for target, version in zip(packages, TRANSFORMERS):
            package = f"transformers=={version}"
            reason = pip(python, package, "--target", target, seconds=args.seconds)
            if reason is not None:
                skip(f"{package} cannot be installed: {reason}")
        checkpoints = train(ssa, directory) + convert(ssa, directory)
        checks = [start_checks(python, each, ssa, checkpoints, directory) for each in packages]
        for process in checks:
            print(process.communicate()[0], flush=True)
        sys.exit(any(process.returncode != 0 for process in checks))


if __name__ == "__main__":
    main()
