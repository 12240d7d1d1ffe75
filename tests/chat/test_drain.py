"""`supervisor.drain`: nothing new comes in, what runs may end, the rest goes on in the next one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.utils import timezone

from chat.errors import ServerStopping
from chat.lifecycle.supervisor import supervisor
from chat.models import Prompt, Response
from modelhost.errors import NotReady
from modelhost.host import host
from tests.chat.refusals import named
from tests.chat.rows import ELSEWHERE, answered, ask, left_behind, row_of
from tests.chat.test_errors import asked
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually, read_events, stream, text_of

MESSAGE = "/chat/new/message/"
COMPLETION = "/v1/chat/completions"
SAY = {"prompt": "Say it"}
HELLO = {"messages": [{"role": "user", "content": "Say it"}]}


@pytest.fixture
def draining() -> Iterator[Callable[[float], threading.Thread]]:
    """Begins to drain in a thread, as the end of the process does."""
    threads: list[threading.Thread] = []

    def begin(seconds: float) -> threading.Thread:
        threads.append(threading.Thread(target=supervisor.drain, args=(seconds,)))
        threads[-1].start()
        eventually(lambda: supervisor.draining)
        return threads[-1]

    yield begin
    supervisor.drain(0)
    for thread in threads:
        thread.join(10)


@pytest.fixture
def gate(serve) -> Turnstile:
    """Lets the pieces of the answer through."""
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    return gate


def test_it_waits_for_what_runs(user, gate, draining):
    asked = [ask(user, str(at)) for at in range(3)]
    thread = draining(30)
    assert not asked[0].live.wait(0.1)
    gate.set()
    thread.join(10)

    assert not thread.is_alive()
    assert {(row.status, row.text) for row in Response.objects.all()} == {("done", "Hello, world")}


def test_with_nothing_running_it_is_over_at_once(user, engine):
    began = time.monotonic()
    supervisor.drain(30)
    assert time.monotonic() - began < 1

    accepted = answered(user, "Hello")
    assert accepted.status == "done"


class Leaving(ScriptedEngine):
    """The process begins to end between a response's row and its generation."""

    def submit(self, *args: Any, **options: Any) -> Any:
        supervisor.drain(0)
        raise NotReady("Stopped.")


def test_what_was_stored_when_the_engine_had_stopped_is_left_to_the_next_process(user, serve):
    serve(Leaving("Hello"))
    with pytest.raises(ServerStopping):
        ask(user)

    row = Response.objects.get()
    assert (row.status, row.worker, row.error, row.finished_at) == ("queued", "", "", None)
    assert row.lease_until is not None
    assert row.lease_until <= timezone.now()


class Late(ScriptedEngine):
    """The process has ended when the generation begins, and nobody carries it."""

    def submit(self, *args: Any, **options: Any) -> Any:
        ticket = super().submit(*args, **options)
        supervisor.drain(0)
        return ticket


@pytest.mark.parametrize("begun", [True, False])
def test_who_asked_just_before_the_end_does_not_wait_for_it(user, serve, gate, begun, monkeypatch):
    monkeypatch.setattr(supervisor, "_stopping", False)  # as in a new process
    if begun:
        supervisor.start()
    engine = serve(Late(gate=gate))
    accepted = ask(user)

    assert (accepted.live.ended, accepted.live.outcome) == (True, None)
    assert engine.tickets[0].finish.reason == "cancelled"
    assert row_of(accepted).active


def test_nothing_new_is_taken_in(api, user, gate, draining):
    before = ask(user)
    draining(30)
    for answer in asked(api, user):
        assert (answer.status_code, named(answer)[0]) == (503, "server_stopping")
        assert 0 < int(answer.headers["Retry-After"]) <= 120
    with pytest.raises(ServerStopping):
        ask(user)

    assert Prompt.objects.get() == before.prompt
    assert not before.live.ended


def test_behind_a_drain_the_model_is_not_loading(api, user, engine):
    supervisor.drain(0)
    host.unload()
    for answer in [*asked(api, user), api.get("/v1/models"), api.get("/v1/models/scripted")]:
        assert (answer.status_code, named(answer)[0]) == (503, "server_stopping")


class Unloaded(ScriptedEngine):
    """The process ends while a prompt is read."""

    def validate(self, *args: Any, **options: Any) -> None:
        supervisor.drain(0)
        raise NotReady("The engine is not running.")


def test_who_asked_before_a_drain_and_came_too_late_hears_of_it(api, user, serve):
    serve(Unloaded())
    for answer in asked(api, user):
        assert named(answer)[0] == "server_stopping"
        supervisor.draining = False

    assert not Prompt.objects.exists()


def test_nothing_is_taken_over_while_it_waits_for_what_runs(user, gate, draining):
    supervisor.start(recover=True)
    ask(user)
    draining(30)
    row = left_behind(user, "Hel")
    supervisor._look()

    row.refresh_from_db()
    assert row.worker == ELSEWHERE


def test_who_is_here_already_is_served_to_the_end(api, user, gate, draining):
    done = answered(user, "Earlier")
    with api.stream("POST", MESSAGE, json={**SAY, "stream": True}) as response:
        row = Response.objects.exclude(pk=done.pk).get()
        thread = draining(30)
        with api.stream("GET", f"/api/responses/{row.pk}/events") as following:
            gate.set()
            streams = [list(read_events(one.iter_lines())) for one in (response, following)]
    thread.join(10)

    assert {text_of(events) for events in streams} == {"Hello, world"}
    assert {events[-1].name for events in streams} == {"done"}
    assert text_of(stream(api, "GET", f"/api/responses/{done.pk}/events")) == "Earlier"
    assert api.get("/chat/get/messages/").status_code == 200
    assert api.delete(f"/api/conversations/{done.prompt.conversation_id}/").status_code == 204


def test_a_retry_still_joins(api, gate, draining):
    key = {"Idempotency-Key": "one"}
    body = {**SAY, "stream": True}
    with api.stream("POST", MESSAGE, json=body, headers=key):
        thread = draining(30)
        with api.stream("POST", MESSAGE, json=body, headers=key) as again:
            gate.set()
            assert text_of(read_events(again.iter_lines())) == "Hello, world"
    thread.join(10)
    assert text_of(stream(api, "POST", MESSAGE, json=body, headers=key)) == "Hello, world"


def test_when_the_time_is_over_the_rest_is_cut_and_stays_open(user, gate):
    accepted = ask(user)
    gate.admit()
    eventually(lambda: accepted.live.text)
    began = time.monotonic()
    supervisor.drain(0.3)

    assert 0.3 <= time.monotonic() - began < 2
    row = row_of(accepted)
    assert (row.status, row.text, row.worker) == ("streaming", "Hello", "")
    assert accepted.live.ended
    assert accepted.live.outcome is None


def test_a_second_call_hurries_the_first(user, gate, draining):
    accepted = ask(user)
    thread = draining(60)
    began = time.monotonic()
    supervisor.drain(0)
    thread.join(10)

    assert time.monotonic() - began < 2
    assert row_of(accepted).active
    supervisor.drain(60)  # a third finds nothing to wait for
    assert time.monotonic() - began < 2


def test_the_next_process_goes_on_with_what_was_cut(user, gate):
    asked = [ask(user, str(at)) for at in range(3)]
    gate.admit(3)
    eventually(lambda: sum(len(accepted.live.text) for accepted in asked) >= len("Hello, "))
    supervisor.drain(0)
    assert {row.status for row in Response.objects.all()} <= {"queued", "streaming"}

    supervisor.draining = False  # as in a new process
    gate.set()
    supervisor.start(recover=True)
    eventually(lambda: Response.objects.filter(status="done").count() == 3)
    assert {row.text for row in Response.objects.all()} == {"Hello, world"}


def test_what_was_held_back_is_not_let_out_by_the_end(api, serve):
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", w", "orld", gate=gate))
    body = {**SAY, "stream": True, "stop": [", world!"]}
    with api.stream("POST", MESSAGE, json=body) as response:
        gate.admit(2)
        eventually(lambda: len(Response.objects.get().token_ids) == len("Hello, w"))
        supervisor.drain(0)
        seen = text_of(read_events(response.iter_lines()))

    row = Response.objects.get()
    assert seen == row.text == "Hello"
    assert (row.status, row.token_ids) == ("streaming", [*map(ord, "Hello, w")])


def test_a_projects_stream_ends_without_an_end_and_its_reader_comes_back(api, gate):
    with api.stream("POST", MESSAGE, json={**SAY, "stream": True}) as response:
        gate.admit(2)
        events = read_events(response.iter_lines())
        first, second = next(events), next(events)
        supervisor.drain(0)
        assert list(events) == []
    supervisor.draining = False
    gate.set()
    supervisor.start(recover=True)
    rest = stream(api, "GET", "/sendMessage", headers={"Last-Event-ID": second.id})

    assert text_of([first, second, *rest]) == "Hello, world"
    assert rest[-1].name == "done"


def test_openais_stream_ends_with_an_error(api, gate):
    with api.stream("POST", COMPLETION, json={**HELLO, "stream": True}) as response:
        eventually(lambda: supervisor.active)
        supervisor.drain(0)
        raw = response.read().decode()

    *_, last, empty = raw.split("\n\n")
    assert (empty, "[DONE]" in raw) == ("", False)
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "server_stopping")
    assert "retry" in error["message"]


@pytest.mark.parametrize(("path", "body"), [(MESSAGE, SAY), (COMPLETION, HELLO)])
def test_who_waits_for_json_is_told_to_come_back(client_for, key, gate, path, body):
    answers: list = []
    waiting = threading.Thread(target=lambda: answers.append(client_for(key).post(path, json=body)))
    waiting.start()
    eventually(lambda: supervisor.active)
    supervisor.drain(0)
    waiting.join(10)

    [answer] = answers
    assert (answer.status_code, named(answer)[0]) == (503, "server_stopping")
    assert 0 < int(answer.headers["Retry-After"]) <= 120
    row = Response.objects.get()
    assert row.active
    if not path.startswith("/v1"):
        assert answer.json()["message_id"] == row.pk.hex, "it can be followed there"
