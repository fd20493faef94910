"""Measures `ssa` and PyTorch sequentially on the same GPU and prints one table of both.

    cargo build --release
    python3 benchmarks/gpu.py --ssa target/release/ssa --out benchmarks/results/<date>-<card>

Every command writes its raw numbers to --out. A failed command is named, and the others still
run. With --only-table nothing is run: the table is that of the files there. Python needs torch;
with fla-core and liger-kernel installed too the peers are faster (see benchmarks/README.md).
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parent / "peers"
ATTENTION, STEP = "attention", "step"


def commands(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """What is run, by the name of its file."""
    ssa, python, out = str(arguments.ssa.resolve()), arguments.python, arguments.out.resolve()
    lengths, budgets = arguments.lengths, arguments.budgets

    def own(name: str, *words: str) -> list[str]:
        return [ssa, "bench", *words, "--json", str(out / f"{name}.json"), "--overwrite"]

    def peer(name: str, script: str, *words: str) -> list[str]:
        return [
            python,
            "-W",
            "ignore",
            str(PEERS / script),
            *words,
            "--out",
            str(out / f"{name}.json"),
        ]

    shape = [
        "--preset",
        arguments.preset,
        "--tokens",
        str(arguments.tokens),
        "--batch",
        str(arguments.batch),
    ]
    shape += ["--steps", str(arguments.steps)]
    every = {
        ATTENTION: own(
            ATTENTION, "attention", "--tokens", ",".join(lengths), "--budgets", ",".join(budgets)
        ),
        "gemm": own("gemm", "gemm", "--presets", arguments.preset),
    }
    every |= {
        f"{STEP}-{name}": own(f"{STEP}-{name}", "step", *shape, "--method", name)
        for name in arguments.methods
    }
    peer_methods = [method for method in arguments.methods if method != "nsa"]
    if arguments.peers:
        every[f"{ATTENTION}-torch"] = peer(
            f"{ATTENTION}-torch", "attention_gpu.py", "--lengths", *lengths, "--budgets", *budgets
        )
        every[f"{STEP}-torch"] = peer(
            f"{STEP}-torch",
            "train_step_gpu.py",
            *shape,
            "--methods",
            *peer_methods,
            "--states",
            *arguments.states,
        )
    return every


def run(name: str, command: list[str], out: Path) -> None:
    start = time.monotonic()
    with (out / f"{name}.log").open("w") as log:
        status = subprocess.run(command, stdout=log, stderr=log).returncode
    what = "done" if status == 0 else f"FAILED ({status}), see {out / name}.log"
    print(f"{name}: {what}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def read(out: Path, name: str) -> dict[str, Any]:
    path = out / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def number(value: float | None, decimals: int = 2) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}"


def ratio(peer: float | None, own: float | None) -> str:
    """How many times as long the peer takes."""
    return "–" if peer is None or own is None else f"{peer / own:.2f}"


def attention_table(out: Path) -> list[str]:
    """Milliseconds by length; sparse attention includes the selection of its blocks."""
    own: dict[tuple[int, str], float] = {}
    for row in read(out, ATTENTION).get("results", []):
        name = row["part"] + (f" {row['budget']}" if row["budget"] else "")
        if row["selection"] != "local" and row.get("ms") is not None:
            own[row["tokens"], name] = row["ms"]
    peers: dict[tuple[int, str, str], float] = {}
    for row in read(out, f"{ATTENTION}-torch").get("rows", []):
        for passes, name in (("forward", "forward"), ("forward_backward", "forward + backward")):
            if passes not in row:
                continue
            words = row["name"].split()
            if words[0] == "full":
                key = (row["tokens"], f"full {name}", words[1])
            elif "select" in words:
                key = (row["tokens"], f"selection + sparse {name} {words[-1]}", "sparse")
            else:
                continue
            peers[key] = min(row[passes]["ms"], peers.get(key, float("inf")))
    names = [name for _, name in own] + [name for _, name, _ in peers]
    wanted = [
        name for name in dict.fromkeys(names) if name.startswith(("full", "selection + sparse"))
    ]
    wanted = [name for name in wanted if name != "full backward"]
    lines = [
        "| T | attention | ssa, ms | FlashAttention-2 | cuDNN | PyTorch/fla sparse "
        "| fastest peer / ssa |",
        "|---|---|---|---|---|---|---|",
    ]
    for tokens in sorted({tokens for tokens, *_ in [*own, *peers]}):
        for name in wanted:
            mine = own.get((tokens, name))
            theirs = [peers.get((tokens, name, peer)) for peer in ("flash", "cudnn", "sparse")]
            best = min((time for time in theirs if time is not None), default=None)
            if mine is not None or best is not None:
                cells = [str(tokens), name, number(mine), *map(number, theirs), ratio(best, mine)]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def with_mean(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Where both streams were measured, also the mean of their times: a run draws each half of the
    time."""
    if {"full", "sparse"} <= rows.keys():
        ms = sum(rows[stream]["ms"] for stream in ("full", "sparse")) / 2
        tokens = rows["full"]["tokens_per_second"] * rows["full"]["ms"]
        peak = max((rows[stream].get("peak_bytes") or 0) for stream in ("full", "sparse"))
        rows["half of each"] = {
            "ms": ms,
            "tokens_per_second": tokens / ms,
            "peak_bytes": peak or None,
        }
    return rows


def step_table(out: Path) -> list[str]:
    """Tokens per second of whole steps."""
    own: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted(out.glob(f"{STEP}-*.json")):
        record = json.loads(path.read_text())
        if record.get("bench") == "step":
            results = record["results"]
            rows = {
                row["stream"]: {**row, "peak_bytes": results["peak_bytes"]}
                for row in results["rows"]
            }
            own[record["settings"]["method"]] = with_mean(rows)
    peers: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in read(out, f"{STEP}-torch").get("rows", []):
        if "ms" in row:
            peers.setdefault((row["method"], row["state"]), {})[row["stream"]] = row
    peers = {key: with_mean(rows) for key, rows in peers.items()}
    lines = [
        "| method | stream | ssa, tok/s | peak, GB | PyTorch f32 state | peak, GB "
        "| PyTorch bf16 state | peak, GB | ssa / f32 | ssa / bf16 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys([*own, *(method for method, _ in peers)]):
        theirs = [peers.get((method, state), {}) for state in ("f32", "bf16")]
        streams = dict.fromkeys([*own.get(method, {}), *theirs[0], *theirs[1]])
        for stream in streams:
            sides = [own.get(method, {}).get(stream), *(rows.get(stream) for rows in theirs)]
            speeds = [None if side is None else side["tokens_per_second"] for side in sides]
            cells = [method, stream]
            for side, speed in zip(sides, speeds, strict=True):
                peak = None if side is None else side["peak_bytes"]
                cells += [number(speed, 0), number(None if peak is None else peak / 1e9, 1)]
            cells += [ratio(speeds[0], speeds[1]), ratio(speeds[0], speeds[2])]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the raw numbers")
    parser.add_argument("--ssa", type=Path, default=Path("target/release/ssa"))
    parser.add_argument("--python", default=sys.executable, help="interpreter with PyTorch")
    parser.add_argument("--lengths", nargs="+", default=["2048", "8192", "32768"])
    parser.add_argument("--budgets", nargs="+", default=["16x16", "64x16"])
    parser.add_argument("--preset", default="ssa-1b")
    parser.add_argument("--methods", nargs="+", default=["full", "ssa"])
    parser.add_argument(
        "--states", nargs="+", default=["f32", "bf16"], help="of PyTorch's weights and moments"
    )
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--only", nargs="+", help="run only these: names of files in --out, such as step-ssa"
    )
    parser.add_argument("--only-table", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.only_table:
        for name, command in commands(arguments).items():
            if not arguments.only or name in arguments.only:
                run(name, command, arguments.out)
    records = [
        read(arguments.out, name) for name in (ATTENTION, f"{STEP}-torch", f"{ATTENTION}-torch")
    ]
    card = next((record["card"] for record in records if record.get("card")), "no record")
    print("\n".join([card, "", *attention_table(arguments.out), "", *step_table(arguments.out)]))


if __name__ == "__main__":
    main()
