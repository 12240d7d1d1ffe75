"""How long a server takes to start and to stop, and what it holds: `python -m bench.lifetime`.

Starts the service as a user would, first over an empty data folder and without a converted demo
model, then once more. What it carries meanwhile is measured by `make bench`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from bench.many.machine import described
from bench.many.processes import Program, free_port, wait_until_ready
from bench.many.tables import table


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        first, to_listen_first, to_ready_first = started(Path(folder))
        stopped(first)
        again, to_listen, to_ready = started(Path(folder))
        memory = again.resident()
        to_stop = stopped(again)
    rows = [
        ["first start, the demo model is converted: listens", f"{to_listen_first:.1f} s"],
        ["the same: ready, a token was made", f"{to_ready_first:.1f} s"],
        ["later start: listens", f"{to_listen:.1f} s"],
        ["the same: ready", f"{to_ready:.1f} s"],
        ["memory, idle and ready", f"{memory / 1e6:.0f} MB"],
        ["SIGTERM to gone, idle", f"{to_stop:.1f} s"],
    ]
    print(described(os.cpu_count() or 1), table(["what", "figure"], rows), sep="\n\n")


def started(folder: Path) -> tuple[Program, float, float]:
    """A server that is ready, and the seconds until it listened and until it was ready."""
    port = free_port()
    program = Program(
        [sys.executable, "manage.py", "serve", "--port", str(port)],
        log=folder / f"{port}.log",
        environment={
            **os.environ,
            "LLMSITE_DATA": str(folder / "data"),
            "LLMSITE_CACHE": str(folder / "cache"),
        },
    )
    seconds = []
    for path in ("/healthz", "/readyz"):
        wait_until_ready(program, port, path, pause=0.2)
        seconds.append(time.perf_counter() - program.begun)
    return program, seconds[0], seconds[1]


def stopped(program: Program) -> float:
    """Seconds until it is gone."""
    begun = time.perf_counter()
    program.stop()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
