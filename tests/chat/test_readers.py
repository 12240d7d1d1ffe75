"""How many clients may wait for a response at once: descriptors stay for others."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from chat.limits import readers as module
from chat.limits.readers import Readers, TooManyStreams, readers
from chat.models import ApiKey, Prompt, Response
from tests.chat.refusals import named
from tests.chat.rows import answered
from tests.fakes import ScriptedEngine
from tests.web import eventually, stream

MESSAGE = "/chat/new/message/"
COMPLETION = "/v1/chat/completions"
SAY = {"prompt": "Say it"}
HELLO = {"messages": [{"role": "user", "content": "Say it"}]}


@pytest.fixture
def limits(settings) -> None:
    """Two of one caller, three of all."""
    settings.LLMSITE_MAX_STREAMS = 3
    settings.LLMSITE_MAX_STREAMS_PER_CALLER = 2


@pytest.fixture
def opened(serve, gate, limits) -> Iterator[Callable[..., httpx.Response]]:
    """Opens streams whose answers do not begin."""
    serve(ScriptedEngine(gate=gate))
    with ExitStack() as streams:

        def open_one(client: httpx.Client, method: str = "POST", path: str = MESSAGE):
            body = {"json": {**SAY, "stream": True}} if method == "POST" else {}
            answer = streams.enter_context(client.stream(method, path, **body))
            assert answer.status_code == 200
            return answer

        yield open_one
        gate.set()


@pytest.fixture(autouse=True)
def nobody_else() -> None:
    """What the tests before had open is gone."""
    eventually(lambda: readers.total == 0)


def test_one_caller_may_have_so_many_and_keeps_nobody_else_out(limits):
    some = Readers(module.streams, "streams")
    for _ in range(2):
        some.enter("ada")
    with pytest.raises(TooManyStreams, match="One caller may have 2"):
        some.enter("ada")

    some.enter("bob")


def test_everybody_together_may_have_so_many(limits):
    some = Readers(module.streams, "streams")
    leaving = [some.enter(f"caller {at}") for at in range(3)]
    with pytest.raises(TooManyStreams, match="holds 3"):
        some.enter("ada")
    leaving[0]()
    some.enter("ada")

    assert some.total == 3


@pytest.mark.parametrize(
    ("soft", "most"),
    [(1024, 512), (600, 450), (256, 192), (100, 36), (10, 1), (resource.RLIM_INFINITY, 512)],
)
def test_descriptors_stay_for_everything_else(monkeypatch, settings, soft, most):
    settings.LLMSITE_MAX_STREAMS = 512
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, soft))

    assert module.streams()[0] == most


def test_one_more_stream_is_refused_before_anything_is_stored(api, user, opened):
    opened(api)
    row = Response.objects.get()
    opened(api, "GET", f"/api/responses/{row.pk}/events")
    asked = [
        api.post(MESSAGE, json={**SAY, "stream": True}),
        api.post(MESSAGE, json=SAY),
        api.get("/sendMessage", params=SAY),
        api.get(f"/api/responses/{row.pk}/events"),
        api.post(COMPLETION, json=HELLO),
    ]

    for answer in asked:
        assert (answer.status_code, named(answer)[0]) == (429, "too_many_streams")
        assert answer.headers["Retry-After"] == "10"
    assert asked[-1].json()["error"]["type"] == "rate_limit_error"
    assert Prompt.objects.count() == 1


def test_what_does_not_wait_is_not_refused(api, opened):
    for _ in range(2):
        opened(api)
    row = Response.objects.first()

    assert api.get(f"/api/responses/{row.pk}/").status_code == 200
    assert api.post(f"/api/responses/{row.pk}/stop").status_code == 200


def test_a_key_and_a_person_have_places_of_their_own(api, client_for, user, opened):
    for _ in range(2):
        opened(api)
    other_key = client_for(ApiKey.issue(user=user)[1])

    opened(other_key)
    assert other_key.post(MESSAGE, json=SAY).status_code == 429, "of all"


def test_whoever_leaves_makes_place(api, opened, client_for, key):
    opened(api)
    leaving = client_for(key)
    opened(leaving)
    assert api.post(MESSAGE, json=SAY).status_code == 429
    leaving.close()

    eventually(lambda: readers.total == 1)
    opened(api)


@pytest.mark.parametrize(
    "ask",
    [
        lambda api: api.post(MESSAGE, json=SAY),
        lambda api: stream(api, "POST", MESSAGE, json={**SAY, "stream": True}),
        lambda api: api.post(MESSAGE, json={**SAY, "max_tokens": 100_000}),
        lambda api: api.post(COMPLETION, json=HELLO, headers={"Idempotency-Key": "one"}),
    ],
    ids=["whole", "stream", "refused", "joined"],
)
def test_an_exchange_that_ended_holds_no_place(api, engine, limits, ask):
    for _ in range(4):
        ask(api)

    eventually(lambda: readers.total == 0)


def test_a_stream_of_what_is_over_holds_no_place(api, user, limits):
    row = answered(user, "Hello")
    for _ in range(4):
        stream(api, "GET", f"/api/responses/{row.pk}/events")

    eventually(lambda: readers.total == 0)
