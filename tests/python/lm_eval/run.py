#!/usr/bin/env python3
"""Compares `ssa eval` with EleutherAI's lm-evaluation-harness, request by request.

    python3 tests/python/lm_eval/run.py --ssa target/release/ssa [--python PYTHON] [--save]
    python3 tests/python/lm_eval/run.py --ssa SSA --python PYTHON --model DIR --rows DIR \
        [--limit N] [--shots 0,5] [TASK...]

The first form runs both on the model and the rows of tests/golden/harness, with full and with
sparse attention, the harness through the model's exported Python files. `--save` keeps its answers
there: a test of the workspace replays them without Python. The second form takes any model and
rows `TASK.SPLIT.jsonl`. Prompts must be equal, log-likelihoods within 1e-3, greedy flags, texts and
scores equal. Of large log-likelihoods 1e-5 is allowed: the harness takes log_softmax in float32.
lm_eval and PyTorch are installed into a temporary directory; `--python` names a Python that has
them. Exits with 77 if packages cannot be installed, with 1 after a difference.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

PACKAGES = ["lm_eval[hf]==0.4.13", "transformers==4.57.6", "datasets==4.4.1"]
TORCH = ["torch==2.11.0", "--index-url", "https://download.pytorch.org/whl/cpu"]
TOLERANCE = 1e-3
# The harness takes log_softmax in float32: of -161.0117 there float64 makes -161.01271, and ssa
# -161.01273.
RELATIVE = 1e-5
SKIPPED = 77
HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parents[1] / "golden/harness"
# The attentions of the small model, and the budget of the sparse one.
ATTENTIONS = {"full": None, "sparse": "8x2"}


def install(directory):
    """A Python with the packages; exits if it cannot be made."""
    python = directory / "venv/bin/python"
    commands = [
        [sys.executable, "-m", "venv", directory / "venv"],
        [python, "-m", "pip", "install", "--quiet", "--no-input", *TORCH],
        [python, "-m", "pip", "install", "--quiet", "--no-input", *PACKAGES],
    ]
    for command in commands:
        if subprocess.run(command).returncode != 0:
            print(f"skipped: {' '.join(map(str, command[1:]))} failed")
            sys.exit(SKIPPED)
    return python


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def tasks_of(rows, names):
    found = {file.name.split(".")[0] for file in rows.glob("*.jsonl")}
    return sorted(found if not names else found & set(names))


def reference(python, args, model, attention, directory):
    """The answers of the harness."""
    output = directory / f"reference-{attention}.json"
    command = [python, HERE / "reference.py", "--model", model, "--rows", args.rows]
    command += ["--output", output, "--shots", args.shots, *tasks_of(args.rows, args.tasks)]
    if args.limit:
        command += ["--limit", args.limit]
    if budget := ATTENTIONS[attention]:
        command += ["--budget", budget]
    run(command)
    return json.loads(output.read_text())


def evaluate(args, model, attention, shots, directory):
    """The answers of `ssa eval`, by task."""
    output = directory / f"ssa-{attention}-{shots}.json"
    tasks = tasks_of(args.rows, args.tasks)
    own = {task: args.rows / f"{task}.yaml" for task in tasks}
    command = [args.ssa, "eval", *(own[task] if own[task].is_file() else task for task in tasks)]
    command += ["--model", model, "--num-fewshot", shots, "--attention", attention]
    command += ["--output", output, "--log-samples", "--device", "cpu"]
    for task in tasks:
        for file in sorted(args.rows.glob(f"{task}.*.jsonl")):
            command += ["--data", f"{task}:{file.name.split('.')[-2]}={file}"]
    if args.limit:
        command += ["--limit", args.limit]
    if budget := ATTENTIONS[attention]:
        command += ["--budget", budget]
    run(command)
    return {result["task"]: result for result in json.loads(output.read_text())["results"]}


def compare(expected, found):
    """The largest difference of a log-likelihood, and messages of what differs."""
    largest, wrong = 0.0, []
    name = f"{expected['task']}, {expected['num_fewshot']} shots"
    if len(expected["documents"]) != len(found["samples"]):
        wrong.append(f"{name}: {len(found['samples'])} documents")
    for number, (one, two) in enumerate(zip(expected["documents"], found["samples"])):
        where = f"{name}, document {number}"
        requests = [
            [part for part in (request["context"], request["continuation"]) if part is not None]
            for request in two["requests"]
        ]
        if found["task"] == "wikitext":
            requests = [request[1:] for request in requests]
        texts = [[part for part in request if isinstance(part, str)] for request in one["requests"]]
        if texts != requests:
            wrong.append(f"{where}: the prompts differ:\n  {texts}\n  {requests}")
        for answer, request in zip(one["answers"], two["requests"]):
            other = request["answer"]
            if isinstance(answer, str):
                if answer != other:
                    wrong.append(f"{where}: {answer!r} and {other!r}")
                continue
            pair = [x if isinstance(x, list) else [x, None] for x in (answer, other)]
            difference = abs(pair[0][0] - pair[1][0])
            largest = max(largest, difference)
            tolerance = max(TOLERANCE, RELATIVE * abs(pair[0][0]))
            if not difference <= tolerance or pair[0][1] != pair[1][1]:
                wrong.append(f"{where}: {answer} and {other}")
    for metric in found["metrics"]:
        for key, value in [(metric["metric"], metric["value"]),
                           (f"{metric['metric']}_stderr", metric["stderr"])]:
            score = expected["scores"].get(key)
            if score is not None and not math.isclose(score, value, rel_tol=1e-4, abs_tol=1e-9):
                wrong.append(f"{name}: {key} {score} and {value}")
    return largest, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--ssa", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--python", help="a Python with lm_eval and PyTorch")
    parser.add_argument("--model", type=pathlib.Path, help="another model")
    parser.add_argument("--rows", type=pathlib.Path, help="its rows")
    parser.add_argument("--shots", default="0,2")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--save", action="store_true", help="keep the answers of the harness")
    parser.add_argument("--expected", type=pathlib.Path, help="answers that reference.py wrote")
    args = parser.parse_args()
    args.ssa = args.ssa.resolve()
    small = args.model is None
    args.rows = args.rows or GOLDEN / "rows"
    os.environ["OMP_NUM_THREADS"] = "1"
    failed = False
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        python = args.python or (None if args.expected else install(directory))
        model = args.model
        if small:
            model = directory / "model"
            run([args.ssa, "export", "--model", GOLDEN / "model", "--to", model, "--as", "ssa"])
        for attention in ATTENTIONS if small else ["full"]:
            expected = (
                json.loads(args.expected.read_text()) if args.expected
                else reference(python, args, model, attention, directory)
            )
            if args.save:
                text = json.dumps(expected, indent=1, ensure_ascii=False)
                (GOLDEN / f"{attention}.json").write_text(text + "\n")
            for shots in sorted({result["num_fewshot"] for result in expected}):
                found = evaluate(args, model, attention, shots, directory)
                for result in (result for result in expected if result["num_fewshot"] == shots):
                    largest, wrong = compare(result, found[result["task"]])
                    requests = sum(len(one["answers"]) for one in result["documents"])
                    print(
                        f"{attention:6} {result['task']:14} {shots} shots: {requests} requests, "
                        f"largest difference {largest:.1e}, {len(wrong)} wrong", flush=True,
                    )
                    for message in wrong[:5]:
                        print(f"  {message}")
                    failed = failed or bool(wrong)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
