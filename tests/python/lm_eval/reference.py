#!/usr/bin/env python3
"""Evaluates a model with EleutherAI's lm-evaluation-harness on local rows, document by document.

    reference.py --model DIR --rows DIR --output FILE [--shots 0,2] [--limit N] [TASK...]

Rows are files `TASK.SPLIT.jsonl`; `TASK.yaml` beside them is a task of one's own. The output is
JSON: for each task and number of shots the scores with their standard errors, and for each document
its requests and the model's answers.
"""

import argparse
import json
import os
import pathlib
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import lm_eval
import lm_eval.tasks

PACKAGE = pathlib.Path(lm_eval.__file__).parent / "tasks"
FILES = {
    "wikitext": "wikitext/wikitext.yaml",
    "piqa": "piqa/piqa.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
    "winogrande": "winogrande/default.yaml",
    "boolq": "super_glue/boolq/default.yaml",
}


def rows_of(task, rows):
    """The local files of a task by split."""
    files = sorted(rows.glob(f"{task}.*.jsonl"))
    return {file.name.split(".")[-2]: str(file.resolve()) for file in files}


def define(task, rows, directory):
    """Writes the task with local rows; returns its name."""
    files = rows_of(task, rows)
    own = rows / f"{task}.yaml"
    source = own.resolve() if own.is_file() else PACKAGE / FILES[task]
    config = {"include": str(source), "task": f"{task}_local", "tag": None}
    config |= {"dataset_path": "json", "dataset_name": None}
    config["dataset_kwargs"] = {"data_files": files}
    # A split without a file does not exist here.
    for split in ["training", "validation", "test"]:
        name = {"training": "train"}.get(split, split)
        if name not in files and task in FILES:
            config[f"{split}_split"] = None
    (directory / f"{task}_local.yaml").write_text(json.dumps(config))
    return config["task"]


def answers(sample):
    """Log-likelihoods with greedy flags, a rolling log-likelihood, or a text."""
    found = []
    for (answer,) in sample["resps"]:
        found.append(list(answer) if isinstance(answer, tuple) else answer)
    return found


def evaluate(args, task, shots, directory, name, model):
    # A manager keeps its tasks, and these the shots of their first evaluation.
    manager = lm_eval.tasks.TaskManager(
        include_path=str(directory), include_defaults=False
    )
    done = lm_eval.simple_evaluate(
        model=model,
        tasks=[name],
        task_manager=manager,
        num_fewshot=shots,
        limit=args.limit,
        log_samples=True,
    )
    scores = {
        key.removesuffix(",none"): value
        for key, value in done["results"][name].items()
        if key.endswith(",none") and isinstance(value, float)
    }
    documents = []
    for sample in sorted(done["samples"][name], key=lambda sample: sample["doc_id"]):
        requests = [
            value if isinstance(value, list) else [value[key] for key in sorted(value)]
            for _, value in sorted(sample["arguments"].items())
        ] if isinstance(sample["arguments"], dict) else [list(one) for one in sample["arguments"]]
        documents.append({"requests": requests, "answers": answers(sample)})
    return {"task": task, "num_fewshot": shots, "scores": scores, "documents": documents}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--shots", default="0")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--budget", help="sparse attention with this budget, of an SSA model")
    args = parser.parse_args()
    tasks = args.tasks or list(FILES)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(scratch)
        names = {task: define(task, args.rows, directory) for task in tasks}
        from lm_eval.models.huggingface import HFLM

        model = HFLM(
            pretrained=args.model, dtype="float32", device="cpu", batch_size=1,
            trust_remote_code=True,
        )
        if args.budget:
            size, counts = map(int, args.budget.split("x"))
            model.model.set_attention("sparse", block_size=size, block_counts=counts)
        for task in tasks:
            for shots in map(int, args.shots.split(",")):
                # There are no rows to draw examples from.
                if shots and len(rows_of(task, args.rows)) == 1:
                    continue
                results.append(evaluate(args, task, shots, directory, names[task], model))
    args.output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
