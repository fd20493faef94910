"""Turns the attention benchmark into a table and a plot of full against sparse attention by length.

    cargo bench -p ssa-kernels --bench attention
    python3 benchmarks/attention_by_length.py --out benchmarks/results/<date>-attention

Reads criterion's medians under target/criterion and writes <out>.json and <out>.svg; prints a
Markdown table.
"""

import argparse
import json
import math
import re
from pathlib import Path

from peers.machine import cpu_name

GROUPS = {"attention_fwd": "forward", "attention_fwd_bwd": "forward + backward"}
COLORS = {"full": "#888888", "sparse": "#d1495b"}
WIDTH, HEIGHT, MARGIN = 420, 300, 48


def read(criterion: Path) -> dict[str, dict[str, dict[int, float]]]:
    """Median milliseconds by group, method and length, at the sizes of the 300M model."""
    times: dict[str, dict[str, dict[int, float]]] = {}
    for group in GROUPS:
        for folder in (criterion / group).glob("*/B1?T*"):
            tokens = int(re.search(r"T(\d+)", folder.name)[1])
            estimates = json.loads((folder / "new/estimates.json").read_text())
            times.setdefault(group, {}).setdefault(folder.parent.name, {})[tokens] = (
                estimates["median"]["point_estimate"] / 1e6
            )
    return times


def table(times: dict[str, dict[str, dict[int, float]]]) -> str:
    head = (
        "| T | full fwd | sparse fwd | (of which selection) | speed-up "
        "| full fwd+bwd | sparse fwd+bwd | speed-up |"
    )
    lines = [head, "|" + "---|" * 8]
    forward, both = times["attention_fwd"], times["attention_fwd_bwd"]
    for tokens in sorted(forward["full"]):
        row = [forward[method][tokens] for method in ("full", "sparse", "selection")]
        row.append(row[0] / row[1])
        row += [both[method][tokens] for method in ("full", "sparse")]
        row.append(row[4] / row[5])
        cells = [f"{x:.2f}x" if i in (3, 6) else f"{x:.1f}" for i, x in enumerate(row)]
        lines.append("| " + " | ".join([str(tokens), *cells]) + " |")
    return "\n".join(lines)


def panel(times: dict[str, dict[int, float]], title: str, left: int) -> list[str]:
    """One log-log chart."""
    lengths = sorted(times["full"])
    values = [times[method][tokens] for method in COLORS for tokens in lengths]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def x(tokens: int) -> float:
        share = math.log2(tokens / lengths[0]) / math.log2(lengths[-1] / lengths[0])
        return left + MARGIN + share * (WIDTH - 2 * MARGIN)

    def y(milliseconds: float) -> float:
        return (
            HEIGHT
            - MARGIN
            - (math.log10(milliseconds) - low) / (high - low) * (HEIGHT - 2 * MARGIN)
        )

    parts = [
        f'<text x="{left + WIDTH / 2}" y="24" text-anchor="middle" font-weight="600">{title}</text>'
    ]
    for power in range(low, high + 1):
        start, end, level = x(lengths[0]), x(lengths[-1]), y(10**power)
        parts.append(f'<line x1="{start}" x2="{end}" y1="{level}" y2="{level}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{start - 6}" y="{level + 4}" text-anchor="end">{10**power:g}</text>'
        )
    for tokens in lengths:
        parts.append(
            f'<text x="{x(tokens)}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{tokens}</text>'
        )
    for method, color in COLORS.items():
        points = " ".join(f"{x(tokens):.1f},{y(times[method][tokens]):.1f}" for tokens in lengths)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>'
        )
        end = (x(lengths[-1]) - 4, y(times[method][lengths[-1]]) - 8)
        parts.append(
            f'<text x="{end[0]:.1f}" y="{end[1]:.1f}" text-anchor="end" fill="{color}">'
            f"{method}</text>"
        )
    return parts


def plot(times: dict[str, dict[str, dict[int, float]]]) -> str:
    panels = [
        part
        for i, (group, title) in enumerate(GROUPS.items())
        for part in panel(times[group], f"{title}, ms by tokens", i * WIDTH)
    ]
    size = f'width="{2 * WIDTH}" height="{HEIGHT}" viewBox="0 0 {2 * WIDTH} {HEIGHT}"'
    style = 'font-family="system-ui, sans-serif" font-size="11" fill="#444"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(panels) + "\n</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--criterion", type=Path, default=Path("target/criterion"))
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    parser.add_argument("--note", default="", help="how it was run: cores, commit")
    arguments = parser.parse_args()
    times = read(arguments.criterion)
    report = {"cpu": cpu_name(), "note": arguments.note, "unit": "ms, median", "times": times}
    arguments.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    arguments.out.with_suffix(".svg").write_text(plot(times))
    print(table(times))


if __name__ == "__main__":
    main()
