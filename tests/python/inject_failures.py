#!/usr/bin/env python3
"""Injects a failure into each system call of a training run or a preparation in turn.

    python3 tests/python/inject_failures.py --ssa target/release/ssa [--places 40] [--jobs 2]

A first run under strace lists every system call that touches the working directory. Then each of
them fails once, with EIO and with ENOSPC. The command must

* end with a documented exit code and a message that names a file, or not be affected;
* when repeated, end with exactly the files of a run without failures: weights, metrics, validations
  and best weights of a training run, all files of a corpus.

Needs Linux and strace (exit code 77 without it). Exits with 1 if any place fails.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SYSCALLS = (
    "openat,read,pread64,readv,write,pwrite64,writev,fsync,fdatasync,ftruncate,rename,renameat,"
    "renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,symlink,symlinkat,link,linkat,flock,getdents64,"
    "statx,newfstatat,lseek,mmap"
)
ERRORS = ["EIO", "ENOSPC"]
# Exit codes of the program: 1 other failures, 2 invalid usage, 3 unusable files.
DOCUMENTED = {1, 2, 3}
TIMES = ["seconds", "tokens_per_second", "tflops"]
CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>")
TINY = """
[model]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 8
block_size = 8
block_counts = 2
[data]
paths = ["text.txt"]
sequence_length = 64
[training]
steps = 6
batch_size = 2
[checkpoint]
every_steps = 2
keep_last = 1
[evaluation]
budgets = ["8x1"]
batch_size = 2
tokens = 256
analysis_tokens = 64
[monitoring]
probe_every = 3
probe_tokens = 64
validate_every = 2
validation_tokens = 128
"""

Place = collections.namedtuple("Place", "job syscall number error")


class Job:
    """A command and its expected files."""

    def __init__(self, name, ssa, directory):
        self.name, self.ssa, self.directory = name, ssa, directory

    def command(self, output):
        raise NotImplementedError

    def outcome(self, output):
        raise NotImplementedError

    def is_complete(self, output):
        raise NotImplementedError


class Training(Job):
    def command(self, output):
        arguments = ["train", "tiny.toml", "--plain", "--threads", "1", "--device", "cpu"]
        return [self.ssa, *arguments, "--run-dir", str(output)]

    def outcome(self, output):
        names = ["checkpoint/model.safetensors", "checkpoint/config.json", "config.toml"]
        names += ["best/model.safetensors", "best/best.json", "checkpoints/step-6/SHA256SUMS"]
        files = {name: digest(output / name) for name in names}
        metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        for step, line in zip(metrics, range(1, 7), strict=True):
            assert step["step"] == line, f"step {step['step']} in line {line}"
            for key in TIMES:
                del step[key]
        entries = sorted(path.name for path in output.iterdir())
        return files, metrics, entries

    def is_complete(self, output):
        return (output / "summary.json").exists()


class Preparation(Job):
    def command(self, output):
        arguments = ["data", "prepare", "docs.jsonl", "--tokenizer", "tokenizer", "--threads", "1"]
        return [self.ssa, *arguments, "--shard-tokens", "400", "--output", str(output)]

    def outcome(self, output):
        # A lock file that could not be removed does not count: no process holds it.
        files = [path for path in sorted(output.iterdir()) if path.suffix != ".lock"]
        return {path.name: digest(path) for path in files}

    def is_complete(self, _output):
        return False


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def call(command, directory):
    result = subprocess.run(command, cwd=directory, capture_output=True, timeout=120, check=False)
    return result.returncode, result.stderr.decode(errors="replace")


def prepare_inputs(ssa, directory):
    (directory / "tiny.toml").write_text(TINY)
    words = "sparse attention reads few blocks and full attention all of them".split()
    lines = [" ".join(words[(i * j) % len(words)] for j in range(4 + i % 9)) for i in range(300)]
    (directory / "text.txt").write_text("\n".join(lines))
    docs = "".join(json.dumps({"text": line}) + "\n" for line in lines)
    (directory / "docs.jsonl").write_text(docs)
    train = ["data", "train-tokenizer", "docs.jsonl", "--vocab-size", "280"]
    code, text = call([ssa, *train, "--output", "tokenizer"], directory)
    assert code == 0, text


def places(job):
    """Every call of a thread that touches the working directory, by its number in that thread."""
    log, output = job.directory / f"{job.name}.strace", job.directory / f"{job.name}-traced"
    trace = ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={SYSCALLS}"]
    code, text = call([*trace, *job.command(output)], job.directory)
    assert code == 0, text
    counts, found = collections.Counter(), set()
    for line in log.read_text(errors="replace").splitlines():
        match = CALL.match(line)
        if not match or RESUMED.match(line):
            continue
        thread, syscall, rest = match.groups()
        counts[thread, syscall] += 1
        # Relative names belong to the working directory too.
        arguments = rest.split(" = ")[0]
        if str(job.directory) in arguments or re.search(r'"[^"/]', arguments.split('"/')[0]):
            found.add((syscall, counts[thread, syscall]))
    shutil.rmtree(output)
    return [Place(job, *place, error) for place in sorted(found) for error in ERRORS]


def check(number, place, expected):
    """The problem at a place, and whether the failed call stopped the command."""
    job = place.job
    output = job.directory / f"out-{number}"
    inject = f"inject={place.syscall}:error={place.error}:when={place.number}"
    strace = ["strace", "-f", "-q", "-o", "/dev/null", "-e", f"trace={place.syscall}", "-e", inject]
    try:
        code, text = call([*strace, *job.command(output)], job.directory)
        stopped = code != 0
        if stopped:
            # Not only at the start of a line: the failed call may interrupt a line.
            found = re.search(r"error: .*", text)
            message = found.group() if found else ""
            # A call of another thread may have the same number as one of the system's loader.
            if code == 127 and "loading shared libraries" in text:
                message = text
            elif code not in DOCUMENTED:
                return f"exit code {code}: {text[-300:]}", stopped
            # Another thread's call of the same number may be to standard output.
            if not re.search(r"[\w.-]+[/.]\w+|tokenizer:|standard output", message):
                return f"no file is named: {text[-300:]}", stopped
            if not job.is_complete(output):
                code, text = call(job.command(output), job.directory)
                if code != 0:
                    return f"the second time, exit code {code}: {text[-300:]}", stopped
        if job.outcome(output) != expected:
            return "the result is another one", stopped
        return None, stopped
    except (subprocess.TimeoutExpired, OSError, AssertionError, ValueError) as error:
        return f"{type(error).__name__}: {error}", True
    finally:
        shutil.rmtree(output, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ssa", type=Path, required=True, help="the program")
    parser.add_argument("--places", type=int, help="so many, drawn at random; all without it")
    parser.add_argument("--jobs", type=int, default=2, help="places at the same time")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    arguments = parser.parse_args()
    if not shutil.which("strace"):
        print("strace is not available; skipping")
        return 77
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        directory, ssa = Path(name).resolve(), str(arguments.ssa.resolve())
        prepare_inputs(ssa, directory)
        jobs = [Training("train", ssa, directory), Preparation("prepare", ssa, directory)]
        expected, todo = {}, []
        for job in jobs:
            straight = directory / f"{job.name}-straight"
            code, text = call(job.command(straight), directory)
            assert code == 0, text
            expected[job] = job.outcome(straight)
            found = places(job)
            print(f"{job.name}: {len(found)} places", flush=True)
            todo += found
        if arguments.places and arguments.places < len(todo):
            todo = random.Random(arguments.seed).sample(todo, arguments.places)
        failures, stopped = [], 0
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            tasks = {pool.submit(check, i, p, expected[p.job]): p for i, p in enumerate(todo)}
            for number, task in enumerate(concurrent.futures.as_completed(tasks), 1):
                if number % 250 == 0:
                    print(f"{number} of {len(todo)}", flush=True)
                place, (problem, stops) = tasks[task], task.result()
                stopped += stops
                if problem:
                    where = f"{place.job.name}, {place.syscall} {place.number}, {place.error}"
                    failures.append(where)
                    print(f"{where}: {problem}", flush=True)
    seconds = time.monotonic() - begin
    print(
        f"{len(todo)} injected failures, {stopped} stopped the command, "
        f"{len(failures)} went wrong; {seconds:.0f} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
