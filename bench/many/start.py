"""From nothing to the first token, weights in the page cache."""

from __future__ import annotations

import asyncio
import time

from bench.many.processes import get
from bench.many.servers import SERVERS, Launch, Setup, start, with_key
from bench.many.tables import table
from bench.many.wires import ask

PATIENCE = 300.0


def compare(setup: Setup) -> list[str]:
    """Each server twice, alone: the first start may compile and keep what the second one finds."""
    rows = []
    for launch_of in SERVERS:
        _, before = timed(launch_of(setup), setup)
        launch = launch_of(setup)  # with data of its own again: a key is printed once
        listens, first = timed(launch, setup)
        rows.append([launch.name, f"{listens:.1f} s", f"{first:.1f} s", f"{before:.1f} s"])
    return ["Warm start:", table(["", "listens", "first token", "the start before"], rows)]


def timed(launch: Launch, setup: Setup) -> tuple[float, float]:
    """Seconds from the start until it listens, and until a client has a token."""
    server = start(launch, setup)
    program, deadline = server.program, time.perf_counter() + PATIENCE
    try:
        while get(server.target.port, launch.alive) != 200:
            wait(deadline)
        listens = time.perf_counter()
        while get(server.target.port, launch.ready) != 200:
            wait(deadline)
        target = with_key(server)
        while True:
            turns = [{"role": "user", "content": "Hi"}]
            answer = asyncio.run(ask(target, "start", turns, 2))
            if not answer.trouble:
                return listens - program.begun, answer.pieces[0][0] - program.begun
            wait(deadline)
    finally:
        program.stop()


def wait(deadline: float) -> None:
    """A moment: who asks more often, takes from the server what it starts with.

    Raises RuntimeError when it took too long.
    """
    if time.perf_counter() > deadline:
        raise RuntimeError("a server did not answer")
    time.sleep(0.2)
