"""Summarizes a training run from its directory: sessions, interruptions, losses.

    python3 benchmarks/run_story.py RUN_DIR [--every 20] [--straight RUN_DIR] [--out FILE.json]

Prints the story. With --straight the steps that another run without interruptions has in common
with it are compared, but for their times: steps that are equal to the last digit show that the
interruptions changed nothing.
"""

import argparse
import json
from pathlib import Path

from peers.machine import cpu_name

TIMES = ("seconds", "tokens_per_second", "tflops", "mfu")


def entries(path: Path) -> list[dict]:
    """The JSON objects of a file. Half a line, which a program leaves that is killed, is left
    out."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def compare(ours: list[dict], theirs: list[dict]) -> dict[str, int]:
    def timeless(step: dict) -> dict:
        return {key: value for key, value in step.items() if key not in TIMES}

    pairs = list(zip(map(timeless, ours), map(timeless, theirs)))
    return {"steps": len(pairs), "equal": sum(one == other for one, other in pairs)}


def tell(journal: list[dict], steps: list[dict]) -> None:
    for entry in journal:
        rest = {key: value for key, value in entry.items() if key not in ("time", "event", "from")}
        print(entry["time"], entry["event"], json.dumps(rest) if rest else "")
    for step in steps:
        if "validation" in step:
            full, sparse = (
                step["validation"][mode]["bits_per_byte"] for mode in ("full", "sparse")
            )
            print(
                f"step {step['step']:5}  loss {step['loss']:.4f}  "
                f"{full:.4f} full, {sparse:.4f} sparse bits/byte"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--every", type=int, default=20, help="interval of the listed steps")
    parser.add_argument(
        "--straight", type=Path, help="a run of the same configuration without interruptions"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    steps = entries(arguments.run_dir / "metrics.jsonl")
    journal = entries(arguments.run_dir / "journal.jsonl")
    tell(journal, steps)
    story = {
        "cpu": cpu_name(),
        "steps": len(steps),
        "tokens": sum(step["tokens"] for step in steps),
        "seconds_in_steps": round(sum(step["seconds"] for step in steps), 1),
        "journal": journal,
    }
    if arguments.straight:
        story["against_straight"] = compare(steps, entries(arguments.straight / "metrics.jsonl"))
    print(
        {key: story.get(key) for key in ("steps", "tokens", "seconds_in_steps", "against_straight")}
    )
    measured = {"probe", "validation"}
    story["metrics"] = [
        step for step in steps if step["step"] % arguments.every == 0 or measured & step.keys()
    ]
    story["config"] = (arguments.run_dir / "config.toml").read_text()
    if arguments.out:
        arguments.out.write_text(json.dumps(story, indent=1) + "\n")


if __name__ == "__main__":
    main()
