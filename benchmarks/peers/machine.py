"""The description of the machine in a record."""

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def cpu_name() -> str:
    """The processor's own name where Linux knows it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def describe_gpu_run() -> dict[str, Any]:
    """Date, commit, card and versions of a run in PyTorch, on the CPU if there is no GPU."""
    import torch  # The other scripts that ask for the machine need no PyTorch.

    folder = Path(__file__).parent
    git = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True
    )
    gpu = torch.cuda.is_available()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git.stdout.strip() or None,
        "card": torch.cuda.get_device_name() if gpu else cpu_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpu else None,
        "driver": driver_version(),
    }


def driver_version() -> str | None:
    """Version of the NVIDIA driver, if there is one."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True).stdout.split()
    except FileNotFoundError:
        return None
    return lines[0] if lines else None
