"""Where the CPU time of our server goes, thread by thread."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from bench.many.cells import Cell, measure
from bench.many.contenders import Contender
from bench.many.conversations import Count
from bench.many.jobs import Job
from bench.many.tables import table

TICK = os.sysconf("SC_CLK_TCK")
# The engine computes on its own thread and on torch's, which Python does not know.
ENGINE = "_run_generation_loop"
NATIVE = "threads without Python (torch's)"
ENDED = "threads that ended meanwhile"


def breakdown(ours: Contender, load: Job, count: Count) -> list[str]:
    """CPU seconds per 1,000 tokens of each kind of thread, and the share outside the engine."""
    ours.program.resume()  # to read names; it is idle
    before = by_thread(ours.program.pid)
    cell = measure(ours, load, count)
    ours.program.resume()
    used = used_by_name(ours.program.pid, before)
    ours.program.pause()
    used[ENDED] = max(0.0, cell.cpu - sum(used.values()))
    outside = sum(seconds for name, seconds in used.items() if name not in (ENGINE, NATIVE))
    return [said(load, cell, outside), listed(used, cell)]


def said(load: Job, cell: Cell, outside: float) -> str:
    """The sentence."""
    thousands = cell.tokens / 1000
    return (
        f"CPU seconds of our server by thread, {load.clients} clients, {cell.tokens} tokens: "
        f"outside the engine {outside / thousands:.2f} s per 1,000 tokens, "
        f"{outside / cell.cpu:.1%} of all."
    )


def listed(used: dict[str, float], cell: Cell) -> str:
    """The table, the largest first."""
    ordered = sorted(used.items(), key=lambda one: -one[1])
    rows = [
        [name, f"{seconds / cell.tokens * 1000:.2f}", f"{seconds / cell.cpu:.1%}"]
        for name, seconds in ordered
        if seconds > 0
    ]
    return table(["thread", "CPU s / 1,000 tokens", "share"], rows)


def by_thread(pid: int) -> dict[int, float]:
    """CPU seconds of each thread that lives."""
    seconds = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        seconds[int(task.name)] = (int(fields[11]) + int(fields[12])) / TICK
    return seconds


def used_by_name(pid: int, before: dict[int, float]) -> dict[str, float]:
    """CPU seconds since then, threads of one name together."""
    names = thread_names(pid)
    used: dict[str, float] = defaultdict(float)
    for thread, seconds in by_thread(pid).items():
        used[names.get(thread, NATIVE)] += seconds - before.get(thread, 0.0)
    return used


def thread_names(pid: int) -> dict[int, str]:
    """Python's names by the system's ids; py-spy reads them out of the process."""
    spy = str(Path(sys.executable).with_name("py-spy"))
    made = subprocess.run(
        [spy, "dump", "--json", "--pid", str(pid)], capture_output=True, text=True, check=True
    )
    threads = json.loads(made.stdout)
    return {thread["os_thread_id"]: kind(thread["thread_name"] or "") for thread in threads}


def kind(name: str) -> str:
    """A thread's name without its number; what it runs, where it has no name of its own."""
    unnamed = re.fullmatch(r"Thread-\d+ \((.+)\)", name)
    return unnamed[1] if unnamed else re.sub(r"[-_]?\d+(_\d+)?$", "", name)
