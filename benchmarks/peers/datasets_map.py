"""Tokenizes a file of JSON lines the usual Python way: `datasets` and the fast `tokenizers`.

    python3 benchmarks/peers/datasets_map.py --input text.jsonl.zst --tokenizer tokenizer.json \
        --eos '</s>' --cores 2 --mode processes --out report.json

Modes, each the fastest way we found to write it:

* `processes`: `datasets.map(num_proc=cores)`, one tokenizer thread in each process;
* `threads`: `datasets.map` in one process, whose tokenizer encodes a batch on `cores` threads;
* `bare`: no pipeline at all. The texts are in memory, the ids are counted and dropped: what the
  tokenizer alone takes.

Offsets are not computed (`encode_batch_fast`), ids are stored as 32 bits, other columns are not
read into the map, and a document ends with the token `--eos`. The times leave out the start of
Python and its imports.
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.json")
    parser.add_argument("--eos", required=True, help="token that ends a document")
    parser.add_argument("--text-field", default="text")
    parser.add_argument("--mode", choices=["processes", "threads", "bare"], required=True)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16, help="documents handed over at once")
    parser.add_argument("--out", type=Path, required=True, help="report, as JSON")
    return parser.parse_args()


arguments = parse_arguments()
# Both libraries read these when they are imported.
os.environ["TOKENIZERS_PARALLELISM"] = "false" if arguments.mode == "processes" else "true"
os.environ["RAYON_NUM_THREADS"] = str(arguments.cores)
os.environ["HF_HUB_OFFLINE"] = "1"

import datasets  # noqa: E402 (after the environment)
import numpy  # noqa: E402
import tokenizers  # noqa: E402

tokenizer = tokenizers.Tokenizer.from_file(str(arguments.tokenizer))
eos = tokenizer.token_to_id(arguments.eos)
if eos is None:
    raise SystemExit(f"{arguments.tokenizer} has no token {arguments.eos}")


def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
    encodings = tokenizer.encode_batch_fast(batch[arguments.text_field], add_special_tokens=False)
    return {"input_ids": [[*encoding.ids, eos] for encoding in encodings]}


def load(cache: str) -> datasets.Dataset:
    return datasets.load_dataset(
        "json", data_files=str(arguments.input), split="train", cache_dir=cache
    ).select_columns([arguments.text_field])


def pipeline(cache: str) -> dict[str, Any]:
    start = time.perf_counter()
    texts = load(cache)
    loaded = time.perf_counter()
    tokens = texts.map(
        encode,
        batched=True,
        batch_size=arguments.batch_size,
        num_proc=arguments.cores if arguments.mode == "processes" else None,
        remove_columns=texts.column_names,
        features=datasets.Features({"input_ids": datasets.Sequence(datasets.Value("int32"))}),
    )
    end = time.perf_counter()
    digest, count = hashlib.sha256(), 0
    for document in tokens.with_format("numpy"):
        ids = document["input_ids"].astype(numpy.uint32)
        digest.update(ids.tobytes())
        count += len(ids)
    return {
        "seconds": end - start,
        "seconds_load": loaded - start,
        "seconds_map": end - loaded,
        "tokens": count,
        "sha256": digest.hexdigest(),
    }


def bare(cache: str) -> dict[str, Any]:
    texts = list(load(cache)[arguments.text_field])
    start_of_process, start, count = time.process_time(), time.perf_counter(), 0
    for first in range(0, len(texts), arguments.batch_size):
        batch = texts[first : first + arguments.batch_size]
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        count += sum(len(encoding) + 1 for encoding in encodings)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - start_of_process,
        "tokens": count,
    }


def main() -> None:
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        report = bare(cache) if arguments.mode == "bare" else pipeline(cache)
    report["versions"] = {"datasets": datasets.__version__, "tokenizers": tokenizers.__version__}
    arguments.out.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
