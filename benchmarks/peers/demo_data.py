"""Rows of byte tokens for the demo: documents packed by concatenation, as `ssa train` packs
them."""

import gzip
import json
import random
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from torch_ssa import IGNORE_INDEX

END_OF_DOCUMENT = 256
VOCABULARY = 257


@dataclass(frozen=True)
class Row:
    ids: Tensor
    labels: Tensor
    document_lengths: list[int]


def read_documents(path: Path) -> list[bytes]:
    """JSON lines with a field `text` (`.jsonl`, `.jsonl.gz`), or any other file as one document."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if ".jsonl" in path.suffixes:
        return [json.loads(line)["text"].encode() for line in data.splitlines()]
    return [data]


def pack(documents: list[bytes], sequence_length: int, seed: int) -> list[Row]:
    """Ends, shuffles and concatenates the documents and cuts rows; a partial last one is
    dropped."""
    documents = random.Random(seed).sample(documents, len(documents))
    ids = torch.cat([torch.tensor([*document, END_OF_DOCUMENT]) for document in documents])
    labels = ids.roll(-1).masked_fill(ids == END_OF_DOCUMENT, IGNORE_INDEX)
    count = len(ids) // sequence_length
    if count == 0:
        raise SystemExit(
            f"the text has {len(ids)} tokens, fewer than data.sequence_length = {sequence_length}"
        )
    rows = []
    for start in range(0, count * sequence_length, sequence_length):
        row = ids[start : start + sequence_length]
        ends = {end + 1 for end in (row == END_OF_DOCUMENT).nonzero().flatten().tolist()}
        borders = sorted({0, sequence_length} | ends)
        lengths = [end - begin for begin, end in pairwise(borders)]
        rows.append(Row(row, labels[start : start + sequence_length], lengths))
    return rows
