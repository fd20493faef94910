"""Times calls on PyTorch's device, in the same way as `ssa bench`.

A sample is several calls in a row between two events, enough of them to take a few milliseconds, so
that the time to launch them is hidden where the device is the slower side. Calls take turns over
sets of inputs that do not fit into the second-level cache together.
"""

import time
from collections.abc import Callable
from itertools import cycle
from statistics import median
from typing import Any

import torch

SAMPLES = 20
FEWEST_SAMPLES = 3
SAMPLE_SECONDS = 0.005
SECONDS = 1.5
"""Time limit for samples, once there are a few."""


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(calls: list[Callable[[], object]]) -> float:
    """Seconds that the calls take on the device, in a row."""
    if not torch.cuda.is_available():
        start = time.perf_counter()
        for call in calls:
            call()
        return time.perf_counter() - start
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for call in calls:
        call()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3


def measure(calls: list[Callable[[], object]]) -> dict[str, Any]:
    """Median milliseconds of a call. `calls` do the same on different inputs."""
    for call in calls:
        call()
    synchronize()
    once = timed(calls) / len(calls)
    turns = cycle(calls)
    batch = max(1, round(SAMPLE_SECONDS / max(once, 1e-9)))
    samples: list[float] = []
    start = time.perf_counter()
    while len(samples) < SAMPLES:
        samples.append(timed([next(turns) for _ in range(batch)]) / batch * 1e3)
        if len(samples) >= FEWEST_SAMPLES and time.perf_counter() - start > SECONDS:
            break
    return {"ms": median(samples), "fastest": min(samples), "samples": len(samples), "calls": batch}


def input_sets(bytes_of_one: int) -> int:
    """How many sets of inputs it takes to spill the second-level cache twice over."""
    if not torch.cuda.is_available():
        return 2
    cache = torch.cuda.get_device_properties().L2_cache_size
    return max(2, min(16, -(-2 * cache // bytes_of_one)))
