"""Requests made to kill an engine harm nobody: a real engine, with healthy neighbours."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from chat.models import Response
from modelhost.engine import Engine
from tests.torture.poison import GOOD, KILLERS, Route, bodies, every_field
from tests.torture.reading import Reading
from tests.torture.size import FULL, amount

BODIES = amount("BODIES", quick=100, full=10_000)
AT_ONCE = 10  # of the generated ones
CONVERSATION = 200  # of them before the routes get a new one
NEIGHBOURS = 2
NEIGHBOUR = {"prompt": "the hat", "stream": True, "max_tokens": 150, "temperature": 0}
SECONDS = 7200 if FULL else 120

pytestmark = pytest.mark.timeout(SECONDS)


@pytest.fixture
def neighbours(cramped: Engine, api: httpx.Client) -> Iterator[list[Future[list[Reading]]]]:
    """Healthy streams, one after the other, for as long as the test lasts."""
    enough = threading.Event()

    def stream() -> list[Reading]:
        made = []
        while not enough.is_set():
            with api.stream("POST", "/chat/new/message/", json=NEIGHBOUR) as response:
                assert response.status_code == 200
                made.append(Reading())
                made[-1].take(response.iter_lines())
        return made

    with ThreadPoolExecutor(NEIGHBOURS) as pool:
        running = [pool.submit(stream) for _ in range(NEIGHBOURS)]
        yield running
        enough.set()
        for future in running:
            assert_finished(future.result())


def assert_finished(readings: list[Reading]) -> None:
    """Every one of them to its last token."""
    assert readings
    for reading in readings:
        assert reading.end == "done", reading.problem
        assert reading.problem["usage"]["completion_tokens"] == NEIGHBOUR["max_tokens"]
        assert reading.faults == []


def assert_never_died(engine: Engine) -> None:
    """Its first thread is still the one that works."""
    assert engine.restarts == 0, f"the engine died {engine.restarts} times"
    assert engine.alive, "the engine died"


@pytest.fixture
def routes(api: httpx.Client, cramped: Engine) -> list[Route]:
    """Every route that asks."""
    return every_route(api)


def every_route(api: httpx.Client) -> list[Route]:
    """The same, with a conversation of their own."""
    answer = api.post("/chat/new/message/", json=GOOD).json()
    prompt = Response.objects.get(pk=uuid.UUID(answer["message_id"])).prompt
    return [
        Route("/chat/new/message/"),
        Route("/v1/chat/completions", wire=True),
        Route("/sendMessage", method="GET"),
        Route(f"/api/conversations/{answer['conversation']}/prompts/"),
        Route(f"/api/prompts/{prompt.pk}/responses/"),
    ]


def test_what_has_killed_engines_is_refused_or_answered_and_harms_nobody(
    api: httpx.Client,
    cramped: Engine,
    routes: list[Route],
    neighbours: Any,
    figures: Callable[[str], None],
) -> None:
    first, *others = routes
    tries = [(route, change) for route in others for change in KILLERS]
    tries += [(first, change) for change in [*KILLERS, *every_field()]]
    if FULL:
        tries += [(route, change) for route in others for change in every_field()]

    harm = [
        (route.path, change, answer.status_code)
        for route, change in tries
        if (answer := api.request(**route.request({**GOOD, **change}))).status_code >= 500
    ]

    assert_never_died(cramped)
    assert harm == []
    figures(f"{len(tries)} poisoned requests: 0 answers of 5xx, 0 restarts, neighbours finished")


def test_an_answer_may_fill_the_cache_to_its_last_token_and_no_further(
    api: httpx.Client, cramped: Engine, neighbours: Any
) -> None:
    prompt = api.post("/chat/new/message/", json=GOOD).json()["message_id"]
    room = cramped.card.context_length - (Response.objects.get(pk=prompt).prompt_tokens or 0)

    full = api.post("/chat/new/message/", json={**GOOD, "max_tokens": room})
    beyond = api.post("/chat/new/message/", json={**GOOD, "max_tokens": room + 1})

    assert full.status_code == 200
    assert Response.objects.get(pk=full.json()["message_id"]).completion_tokens == room
    assert beyond.status_code == 400
    assert_never_died(cramped)


def test_no_generated_body_is_answered_with_an_error_of_ours(
    api: httpx.Client,
    cramped: Engine,
    neighbours: Any,
    figures: Callable[[str], None],
) -> None:
    routes: list[Route] = []
    seen = {"bodies": 0, "accepted": 0}

    def send(number: int, body: dict[str, Any]) -> httpx.Response:
        return api.request(**routes[number % len(routes)].request(body))

    @examples(
        max_examples=BODIES // AT_ONCE,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(together=st.lists(bodies, min_size=AT_ONCE, max_size=AT_ONCE))
    def ask(together: list[dict[str, Any]]) -> None:
        if seen["bodies"] % CONVERSATION == 0:  # or one conversation would become endless
            routes[:] = every_route(api)
        numbers = range(seen["bodies"], seen["bodies"] + len(together))
        for body, answer in zip(together, pool.map(send, numbers, together), strict=True):
            assert answer.status_code < 500, (answer.url.path, body, answer.text)
            seen["accepted"] += answer.status_code < 400
        seen["bodies"] += len(together)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        ask()

    assert_never_died(cramped)
    figures(
        f"{seen['bodies']} generated bodies, {seen['accepted']} of them accepted: "
        "0 answers of 5xx, 0 restarts, neighbours finished"
    )
