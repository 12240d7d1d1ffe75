"""Two processes over one database: one dies, the other goes on where it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.torture.promises import broken, unfinished
from tests.torture.reading import events
from tests.torture.site import Site
from tests.torture.size import FULL, amount
from tests.torture.waiting import until_none
from tests.torture.writer import Asked, send, take

DEATHS = amount("DEATHS", quick=1, full=30)
READERS = 4
WORDS = 60  # two and a half seconds
SETTLED_AFTER = 10.0  # seconds after the last reader
LOOKS = 1.5  # seconds in which each process has looked for what is abandoned

pytestmark = pytest.mark.timeout(3600 if FULL else 120)


def test_the_readers_of_a_dead_process_read_on_at_another(
    new_site: Callable[..., Site], figures: Callable[[str], None]
) -> None:
    dying, living = new_site(lease=2.0, pause=0.04), new_site(lease=2.0, pause=0.04)
    living.start()
    asked: list[Asked] = []
    cut: list[Asked] = []

    for number in range(DEATHS):
        dying.start()
        there = threading.Barrier(READERS + 1)
        moved = [Asked(f"dying{number}r{index}", WORDS, returns=True) for index in range(READERS)]
        stayed = [Asked(f"living{number}r{index}", WORDS, returns=True) for index in range(READERS)]
        with ThreadPoolExecutor(2 * READERS) as pool:
            reads = [pool.submit(read_at_two, dying, living, one, there) for one in moved]
            reads += [pool.submit(read_on, living, one) for one in stayed]
            there.wait(20)
            threading.Event().wait(LOOKS)
            dying.end()
            for read in reads:
                read.result()
        asked += [*moved, *stayed]
        cut += moved

    assert dying.taken_over() == [], "taken from a process that lives"
    until_none(lambda: unfinished(living.store.rows()), "left unfinished", seconds=SETTLED_AFTER)
    rows = living.store.rows()
    assert broken(asked, rows) == []
    assert sorted(living.taken_over()) == sorted(one.reading.message_id for one in cut)
    figures(f"{DEATHS} deaths beside a living process: {len(cut)} answers taken over, each once")


def read_at_two(first: Site, second: Site, asked: Asked, there: threading.Barrier) -> None:
    """Begin at one process; when it dies, come back to the other."""
    try:
        with first.client() as client, send(client, asked) as response:
            lines = response.iter_lines()
            asked.reading.take(events(lines, 3))
            there.wait(20)
            asked.reading.take(lines)
    except httpx.TransportError:
        read_on(second, asked)


def read_on(site: Site, asked: Asked) -> None:
    """To the end."""
    with site.client() as client, send(client, asked) as response:
        take(response, asked)
