"""Whether memory stays where it is under a load that goes on."""

from __future__ import annotations

import statistics
import threading
import time
from itertools import count as counting

from bench.many.contenders import Contender
from bench.many.conversations import Size
from bench.many.rounds import job

CLIENTS = 32
EVERY = 1.0  # seconds between looks


def measure(ours: Contender, size: Size, *, minutes: float) -> str:
    """One sentence: memory at the beginning and at the end, and what came in between."""
    looks: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(EVERY):
            looks.append(ours.program.resident())

    answers = 0
    with ours.awake():
        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            ends = time.perf_counter() + minutes * 60
            for number in counting():
                load = job(CLIENTS, size, label=f"steady{number}")
                answers += len(ours.do(load).answers)
                if time.perf_counter() > ends:
                    break
        finally:
            over.set()
            watcher.join()
    return f"{minutes:g} minutes at {CLIENTS} clients, {answers} answers: {grown(looks)}"


def grown(looks: list[int]) -> str:
    """The middle of the first and of the last third."""
    third = max(1, len(looks) // 3)
    first, last = (statistics.median(part) / 1e6 for part in (looks[:third], looks[-third:]))
    return (
        f"{first:.0f} MB in the first third, {last:.0f} MB in the last ({last - first:+.1f} MB), "
        f"{max(looks) / 1e6:.0f} MB at most."
    )
