"""The record of a run on a GPU: written again after every row, so that a run cut short loses
nothing."""

import argparse
import json
from typing import Any

from machine import describe_gpu_run


class Report:
    """Rows under the date, commit, card, versions and settings of the run, in the file of `--out`
    if there is one."""

    def __init__(self, arguments: argparse.Namespace, libraries: dict[str, bool]) -> None:
        self.out = arguments.out
        settings = {key: value for key, value in vars(arguments).items() if key != "out"}
        self.head = {**describe_gpu_run(), "libraries": libraries, "settings": settings}
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        print(json.dumps(row), flush=True)
        self.rows.append(row)
        if self.out:
            self.out.write_text(json.dumps({**self.head, "rows": self.rows}, indent=1) + "\n")
