"""What else the machine does: figures taken beside other work mean little, and say so."""

from __future__ import annotations

import time

import psutil

QUIET = 0.1  # of all cores, busy with other things, at most
LOOK = 0.2  # seconds of a look


def busy() -> float:
    """CPU seconds of everything since the machine started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def share(used: float, seconds: float) -> float:
    """So many CPU seconds of all that the machine had in this time."""
    return max(0.0, used) / (seconds * (psutil.cpu_count() or 1))


def wait_for_quiet(seconds: float) -> None:
    """Until the machine has come to rest, or for so long."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline and look() > QUIET:
        pass


def look() -> float:
    """The share of the machine that is used while this program only looks."""
    before, begun = busy(), time.perf_counter()
    time.sleep(LOOK)
    return share(busy() - before, time.perf_counter() - begun)
