"""What a recorded run says about the machine."""

import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor's own name where Linux knows it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
