"""A connection cut at any byte: the client comes back and reads one seamless text."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from chat.models import Response
from tests.torture.proxy import Cut, CuttingProxy, How
from tests.torture.reading import Reading
from tests.torture.size import FULL, amount
from tests.torture.witness import StridingWitness, witness_text
from tests.web import eventually

CUTS = amount("CUTS", quick=60, full=0)  # 0: every byte in every way
SEED = amount("SEED", quick=1, full=1)
NAME, WORDS = "é你好👋🏽", 14
MEASURED = 3  # responses of each way, to know how long they are
TRIES = 20  # a response may be over before the cut: then another one is cut there
SECONDS = 7200 if FULL else 120
ASK = "/chat/new/message/"


def by_header(reading: Reading) -> dict[str, Any]:
    """Come back as an EventSource does."""
    path = f"/api/responses/{reading.message_id}/events"
    return {"method": "GET", "url": path, "headers": {"Last-Event-ID": reading.last_id}}


def by_number(reading: Reading) -> dict[str, Any]:
    """Come back with a count of characters."""
    path = f"/api/responses/{reading.message_id}/events"
    return {"method": "GET", "url": path, "params": {"after": len(reading.text)}}


def by_post(reading: Reading) -> dict[str, Any]:
    """Come back with the request itself."""
    return {**post(reading), "headers": {"Last-Event-ID": reading.last_id}}


def post(reading: Reading) -> dict[str, Any]:
    """Ask, and ask again the same until there is an id."""
    body = {"prompt": f"{NAME} {WORDS}", "stream": True}
    return {"method": "POST", "url": ASK, "json": body, "headers": {"Idempotency-Key": KEYS[0]}}


def event_source(reading: Reading) -> dict[str, Any]:
    """A browser's EventSource, asking and coming back with the same address."""
    headers = {"Last-Event-ID": reading.last_id} if reading.last_id else {}
    params = {"prompt": f"{NAME} {WORDS}"}
    return {"method": "GET", "url": "/sendMessage", "params": params, "headers": headers}


WAYS = [(post, by_header), (post, by_number), (post, by_post), (event_source, event_source)]
KEYS = [""]


def read_through(client: httpx.Client, way: tuple[Any, Any]) -> Reading:
    """Ask and come back until the response has ended."""
    ask, come_back = way
    KEYS[0] = uuid.uuid4().hex
    reading = Reading()
    while not reading.end and reading.connections < 10:
        request = come_back(reading) if reading.message_id else ask(reading)
        try:
            with client.stream(**request) as response:
                if response.status_code == 204:
                    reading.end = "nothing more"
                    continue
                assert response.status_code == 200, response.read()
                reading.take(response.iter_lines())
        except httpx.TransportError:
            continue
    return reading


def cuts(length: int, first: int) -> Iterator[tuple[tuple[Any, Any], Cut]]:
    """Ways to come back with cuts, over a response of this length whose id ends at `first`."""
    if CUTS == 0:
        ways = itertools.cycle(WAYS)
        for at, how in itertools.product(range(1, length), How):
            way = next(ways)
            yield way, Cut(max(at, first) if way[0] is event_source else at, how)
        return
    chance = random.Random(SEED)
    for way, how in itertools.islice(itertools.cycle(itertools.product(WAYS, How)), CUTS):
        start = first if way[0] is event_source else 1
        yield way, Cut(chance.randrange(start, length), how)


@pytest.mark.timeout(SECONDS)
def test_a_reader_cut_off_at_any_byte_comes_back_to_a_seamless_text(
    client: httpx.Client,
    proxy: CuttingProxy,
    witness: StridingWitness,
    figures: Callable[[str], None],
) -> None:
    length, first = measure(client, proxy)
    chance = random.Random(SEED)
    places = 0

    for way, cut in cuts(length, first):
        for _ in range(TRIES):
            again = Cut(chance.randrange(1, length), cut.how)
            planned = [cut, again] if chance.random() < 0.3 else [cut]
            made = cut_and_check(client, proxy, witness, way, planned)
            if made == len(planned):
                break
        assert made == len(planned), f"{TRIES} responses were over before {planned}"
        places += 1

    figures(
        f"{places} places of a response of {length} bytes, {proxy.made} cuts made: "
        "0 gaps, 0 repeats, 0 asked twice"
    )


def measure(client: httpx.Client, proxy: CuttingProxy) -> tuple[int, int]:
    """Bytes of a response, and of its beginning that holds the id.

    Of some the fewest: a busy machine puts two pieces into one event now and then.
    """
    lengths, beginnings = [], []
    for _, way in itertools.product(range(MEASURED), WAYS):
        read_through(client, way)
        lengths.append(len(proxy.passed))
        beginnings.append(proxy.passed.index(b"\n\n") + 2)
    return min(lengths), max(beginnings)


def cut_and_check(
    client: httpx.Client,
    proxy: CuttingProxy,
    witness: StridingWitness,
    way: tuple[Any, Any],
    planned: list[Cut],
) -> int:
    """One response through these cuts; how many of them its bytes reached."""
    proxy.cuts = list(planned)
    generations, made = witness.generations, proxy.made

    reading = read_through(client, way)

    proxy.cuts = []
    eventually(lambda: not find(reading).active)
    row, where = find(reading), (way, planned)
    right = witness_text(NAME, row.seed or 0, WORDS)
    assert reading.faults == [], f"{reading.faults[0]} {where}"
    assert reading.text == row.text == right, f"the reader has another text {where}"
    assert witness.generations == generations + 1, f"asked more than once {where}"
    return proxy.made - made


def find(reading: Reading) -> Response:
    """The row that the client was told of."""
    return Response.objects.get(pk=uuid.UUID(reading.message_id))
