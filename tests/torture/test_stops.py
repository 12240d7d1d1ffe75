"""Starting and stopping at any moment leaves nothing behind."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from django.db import connections

from chat.lifecycle.supervisor import supervisor
from chat.models import Response
from modelhost.engine import Engine
from tests.sockets import Socket, socket_to
from tests.torture.reading import Reading, events
from tests.torture.remains import Remains
from tests.torture.size import FULL, amount
from tests.torture.waiting import until_none
from tests.torture.witness import StridingWitness

STOPS = amount("STOPS", quick=500, full=5000)
SOCKET_STOPS = amount("SOCKET_STOPS", quick=200, full=2000)
REAL_STOPS = amount("REAL_STOPS", quick=30, full=500)
SEED = amount("SEED", quick=1, full=1)
AT_ONCE = 8
WORDS = 3000  # more than anybody waits for
SETTLED_AFTER = 20.0
THREADS = AT_ONCE + 4  # of requests that are over, which wait a little for new ones

pytestmark = pytest.mark.timeout(3600 if FULL else 120)


def stop_by_route(api: httpx.Client, reading: Reading, lines: Iterator[str]) -> None:
    """And read on to the end that it makes."""
    answer = api.post(f"/api/responses/{reading.message_id}/stop")
    assert answer.status_code == 200, answer.text
    reading.take(lines)
    assert reading.end == "done", reading.problem
    assert reading.faults == []


def leave(api: httpx.Client, reading: Reading, lines: Iterator[str]) -> None:
    """Just go: the request said that this is a wish to stop."""


def stop_and_leave(api: httpx.Client, reading: Reading, lines: Iterator[str]) -> None:
    """Both at the same time."""
    api.post(f"/api/responses/{reading.message_id}/stop")


WAYS = [stop_by_route, leave, stop_and_leave]


def stop_many(api: httpx.Client, count: int, max_tokens: int) -> None:
    """Start and stop, some at a time, each at its own moment."""
    chance = random.Random(SEED)
    plans = [(way, chance.randint(1, 12)) for way in itertools.islice(itertools.cycle(WAYS), count)]
    body = {
        "prompt": f"stop {WORDS}",
        "max_tokens": max_tokens,
        "stream": True,
        "on_disconnect": "stop",
    }

    def start_and_stop(plan: tuple[Any, int]) -> None:
        way, moment = plan
        reading = Reading()
        with api.stream("POST", "/chat/new/message/", json=body) as response:
            assert response.status_code == 200, response.read()
            lines = response.iter_lines()
            reading.take(events(lines, moment))
            way(api, reading, lines)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(start_and_stop, plans))


def stop_by_message(socket: Socket, message_id: str) -> None:
    """And read on to the end that it makes."""
    socket.tell("stop", message_id=message_id)
    to_come = {"done", "stopping"}
    while to_come:
        heard = socket.hear()
        if heard["message_id"] == message_id:
            to_come.discard(heard["type"])


def vanish(socket: Socket, message_id: str) -> None:
    """Without a word: not even the socket's own."""
    socket.connection.socket.close()


def stop_and_vanish(socket: Socket, message_id: str) -> None:
    """Both at the same time."""
    socket.tell("stop", message_id=message_id)
    vanish(socket, message_id)


SOCKET_WAYS = [stop_by_message, vanish, stop_and_vanish]


def stop_many_by_socket(api: httpx.Client, count: int, max_tokens: int) -> None:
    """The same through WebSockets, two responses in each of which one is stopped."""
    chance = random.Random(SEED)
    ways = itertools.islice(itertools.cycle(SOCKET_WAYS), count)
    plans = [(way, chance.randint(1, 12)) for way in ways]
    key = api.headers["Authorization"].removeprefix("Bearer ")
    wishes = {"max_tokens": max_tokens, "on_disconnect": "stop"}

    def start_and_stop(plan: tuple[Any, int]) -> None:
        way, moment = plan
        with socket_to(Somewhere(str(api.base_url).rstrip("/")), key) as socket:
            asked = [socket.ask(f"stop {WORDS}", **wishes) for _ in range(2)]
            for _ in range(moment):
                socket.hear_text()
            way(socket, asked[0]["message_id"])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(start_and_stop, plans))


@dataclass(frozen=True)
class Somewhere:
    """A server that is known by its address alone."""

    address: str


def tickets(engine: Engine | StridingWitness) -> list[str]:
    """What an engine still generates."""
    return [f"{engine.active} tickets"] if engine.active else []


def idle() -> Remains:
    """What is held when the supervisor has nothing to do and is ended.

    It has a handle of the database open, and SQLite keeps the files of those that were closed
    for as long as the process has another one open: how many is chance until then.
    """
    supervisor.stop()
    connections.close_all()
    return Remains.now()


def left_over(before: Remains, now: Remains) -> dict[str, int]:
    """What is held now and was not before, threads that wait for work apart."""
    more = now.beyond(before)
    if more.get("threads", 0) <= THREADS:
        more.pop("threads", None)
    return more


@pytest.mark.parametrize(
    ("model", "stop_some", "count", "max_tokens"),
    [
        ("witness", stop_many, STOPS, 50_000),
        ("witness", stop_many_by_socket, SOCKET_STOPS, 50_000),
        ("real", stop_many, REAL_STOPS, 400),
        ("real", stop_many_by_socket, REAL_STOPS, 400),
    ],
    ids=["witness", "witness-socket", "real", "real-socket"],
)
def test_responses_stopped_at_any_moment_leave_nothing_behind(
    model: str,
    stop_some: Callable[[httpx.Client, int, int], None],
    count: int,
    max_tokens: int,
    request: pytest.FixtureRequest,
    api: httpx.Client,
    figures: Callable[[str], None],
) -> None:
    engine: Engine | StridingWitness = request.getfixturevalue(model)
    stop_some(api, AT_ONCE, max_tokens)
    until_none(lambda: tickets(engine), "generated for nobody", seconds=SETTLED_AFTER)
    until_none(lambda: range(supervisor.active), "not written", seconds=SETTLED_AFTER)
    before = idle()

    stop_some(api, count, max_tokens)

    def left_behind() -> dict[str, int]:  # handles apart, see idle
        return left_over(before, replace(Remains.now(), handles=0))

    until_none(left_behind, "left behind", seconds=SETTLED_AFTER)
    until_none(lambda: left_over(before, idle()), "left behind", seconds=SETTLED_AFTER)
    ends = Counter(Response.objects.values_list("status", flat=True))
    assert set(ends) <= {"stopped", "done"}
    assert model == "real" or set(ends) == {"stopped"}, "no witness ends by itself so soon"
    how = stop_some.__name__.replace("_", " ")
    figures(f"{count} × {how} ({model}): nothing left, {ends['stopped']} cut short")
