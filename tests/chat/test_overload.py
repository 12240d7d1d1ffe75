"""Too much at once, over HTTP: refused before anything is stored, and who waits sees its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from chat import acceptance
from chat.errors import ConversationBusy
from chat.lifecycle.supervisor import supervisor
from chat.limits.admission import UNKNOWN_WAIT, Overloaded, admission
from chat.models import ApiKey, IdempotencyKey, Prompt, Response
from tests.chat.meanwhile import Rendering
from tests.chat.refusals import named
from tests.chat.rows import ask
from tests.chat.test_errors import asked
from tests.fakes import ScriptedEngine
from tests.web import Event, eventually, read_events, stream

MESSAGE = "/chat/new/message/"
COMPLETION = "/v1/chat/completions"
SAY = {"prompt": "Say it", "stream": True}
HELLO = {"messages": [{"role": "user", "content": "Say it"}], "stream": True}


@pytest.fixture
def limits(settings) -> None:
    """Two of one caller, three of all."""
    settings.LLMSITE_MAX_REQUESTS = 3
    settings.LLMSITE_MAX_REQUESTS_PER_CALLER = 2


@pytest.fixture
def crowd(serve, gate) -> Iterator[ExitStack]:
    """Keeps streams open whose answers do not begin."""
    serve(ScriptedEngine(gate=gate))
    with ExitStack() as streams:
        yield streams
        gate.set()


def enter(crowd: ExitStack, client: httpx.Client, path: str = MESSAGE, body=SAY) -> httpx.Response:
    """One more open stream."""
    response = crowd.enter_context(client.stream("POST", path, json=body))
    assert response.status_code == 200
    return response


def test_one_caller_at_its_limit_is_refused_and_keeps_nobody_else_out(
    api, client_for, other_api, user, limits, crowd
):
    for _ in range(2):
        enter(crowd, api)
    for answer in asked(api, user):
        assert (answer.status_code, named(answer)[0]) == (429, "too_many_requests")
        assert answer.reason_phrase == "Too Many Requests"
        assert 1 <= int(answer.headers["Retry-After"]) <= 120
        assert "One caller" in answer.text
    assert Prompt.objects.count() == Response.objects.count() == 2
    assert not IdempotencyKey.objects.exists()

    enter(crowd, other_api)
    everybody = client_for(ApiKey.issue(user=user)[1]).post(MESSAGE, json=SAY)
    assert everybody.status_code == 429
    assert "The server takes 3 requests" in everybody.json()["detail"]


def test_another_key_of_the_same_person_has_places_of_its_own(api, client_for, user, limits, crowd):
    for _ in range(2):
        enter(crowd, api)
    enter(crowd, client_for(ApiKey.issue(user=user)[1]))

    assert Response.objects.count() == 3


def test_openais_clients_see_a_rate_limit(api, limits, crowd):
    for _ in range(2):
        enter(crowd, api, COMPLETION, HELLO)
    answer = api.post(COMPLETION, json=HELLO)

    assert answer.status_code == 429
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "too_many_requests")
    assert 1 <= int(answer.headers["Retry-After"]) <= 120


def test_the_tokens_of_the_prompts_are_counted(api, settings, crowd):
    settings.LLMSITE_MAX_TOKENS_PER_CALLER = 2 * len("user: Say it\n") + 5
    for _ in range(2):
        enter(crowd, api)

    assert api.post(MESSAGE, json=SAY).status_code == 429
    assert Response.objects.count() == 2


@pytest.mark.parametrize("end", ["done", "stopped", "left", "deleted", "failed"])
def test_every_end_gives_the_place_back(api, settings, serve, gate, end):
    settings.LLMSITE_MAX_REQUESTS_PER_CALLER = 1
    serve(ScriptedEngine(gate=gate, fail_at=0 if end == "failed" else None))
    before = admission.total.requests
    with api.stream("POST", MESSAGE, json={**SAY, "on_disconnect": "stop"}) as response:
        assert api.post(MESSAGE, json=SAY).status_code == 429
        row = Response.objects.get()
        if end in ("done", "failed"):
            gate.set()
        elif end == "stopped":
            api.post(f"/api/responses/{row.pk}/stop")
        elif end == "deleted":
            api.delete(f"/api/conversations/{row.prompt.conversation_id}/")
        if end != "left":
            response.read()
    eventually(lambda: admission.total.requests == before)

    gate.set()
    assert api.post(MESSAGE, json={"prompt": "Next"}).status_code in (200, 503)


def test_what_is_refused_for_another_reason_takes_no_place(api, settings, serve):
    settings.LLMSITE_MAX_REQUESTS_PER_CALLER = 1
    before = admission.total
    serve(ScriptedEngine(context_length=50))
    for _ in range(3):
        assert api.post(MESSAGE, json={"prompt": "A" * 60}).status_code == 400
    serve(ScriptedEngine(max_requests=0))
    for _ in range(3):
        assert api.post(MESSAGE, json=SAY).status_code == 429

    assert admission.total == before


def test_a_prompt_for_a_busy_conversation_takes_no_place_and_says_nothing_of_the_rate(
    user, serve, gate, places, clock, monkeypatch
):
    monkeypatch.setattr(acceptance, "admission", places)
    serve(ScriptedEngine(gate=gate))
    conversation = ask(user).prompt.conversation
    inside = places.total
    clock.now += 5
    for _ in range(2):
        with pytest.raises(ConversationBusy):
            ask(user, conversation=conversation)
        assert places.total == inside
    ask(user)
    ask(user)

    with pytest.raises(Overloaded) as refused:
        ask(user)
    assert refused.value.retry_after == UNKNOWN_WAIT


def test_who_is_refused_anyway_costs_no_rendering(user, serve, gate, settings):
    settings.LLMSITE_MAX_REQUESTS_PER_CALLER = 1
    engine = serve(Rendering(gate=gate))
    ask(user)
    with pytest.raises(Overloaded):
        ask(user)

    assert engine.rendered == 1


def test_who_joins_needs_no_place(api, limits, crowd, gate):
    key = {"Idempotency-Key": "one"}
    for headers in (key, {}):
        response = crowd.enter_context(api.stream("POST", MESSAGE, json=SAY, headers=headers))
        assert response.status_code == 200
    again = crowd.enter_context(api.stream("POST", MESSAGE, json=SAY, headers=key))
    row = Response.objects.order_by("created_at").first()
    following = crowd.enter_context(api.stream("GET", f"/api/responses/{row.pk}/events"))

    assert (again.status_code, following.status_code) == (200, 200)
    assert admission.total.requests >= 2
    assert Response.objects.count() == 2


def positions(events: list[Event]) -> list[int]:
    """The places in the queue that a stream told."""
    return [event.data["position"] for event in events if event.name == "queued"]


@pytest.mark.parametrize("path", [MESSAGE, "/sendMessage", "/api/responses/{id}/events"])
def test_who_waits_is_told_how_many_are_ahead(api, crowd, gate, path):
    first, second = enter(crowd, api), enter(crowd, api)
    rows = list(Response.objects.order_by("created_at"))
    if path == MESSAGE:
        waiting = enter(crowd, api)
        expected = Response.objects.order_by("created_at").last()
    elif path == "/sendMessage":
        query = {"prompt": "Say it"}
        waiting = crowd.enter_context(api.stream("GET", path, params=query))
        expected = Response.objects.order_by("created_at").last()
    else:
        expected = rows[1]
        waiting = crowd.enter_context(api.stream("GET", path.format(id=expected.pk)))
    ahead = 1 if expected == rows[1] else 2
    events = read_events(waiting.iter_lines())

    told = next(events)
    assert (told.name, told.data) == (
        "queued",
        {"message_id": expected.pk.hex, "position": ahead},
    )
    assert told.id in ("", f"{expected.pk.hex}:0"), "nothing was read yet"
    api.post(f"/api/responses/{rows[0].pk}/stop")
    assert next(events).data["position"] == ahead - 1
    gate.set()
    rest = list(events)
    assert rest[-1].name == "done"
    assert [event.name for event in rest if event.name == "queued"] in ([], ["queued"])
    assert list(read_events(first.iter_lines()))[-1].data["finish_reason"] == "cancelled"
    assert list(read_events(second.iter_lines()))[-1].name == "done"


def test_whose_answer_begins_at_once_is_told_nothing(api, engine):
    events = stream(api, "POST", MESSAGE, json=SAY)

    assert positions(events) == []


def test_who_is_first_and_waits_is_told_that_nobody_is_ahead(api, crowd, gate):
    events = read_events(enter(crowd, api).iter_lines())

    told = next(events)
    assert (told.name, told.data["position"]) == ("queued", 0)
    gate.set()
    assert positions(list(events)) == []


def test_openais_stream_has_no_such_event(api, crowd, gate):
    enter(crowd, api)
    response = enter(crowd, api, COMPLETION, HELLO)
    row = Response.objects.order_by("created_at").last()
    assert supervisor.live(row.pk).position() == 1
    gate.set()
    raw = response.read().decode()

    assert "queued" not in raw
    assert "event:" not in raw
    assert "position" not in raw


def test_a_whole_text_as_one_event_needs_no_queue(api, crowd, gate):
    enter(crowd, api)
    headers = {"Accept": "text/event-stream"}
    body = {"prompt": "Say it"}
    response = crowd.enter_context(api.stream("POST", MESSAGE, json=body, headers=headers))
    gate.set()
    events = list(read_events(response.iter_lines()))

    assert [event.name for event in events] == ["message", "done"]
