"""`POST /api/responses/{id}/stop`: the text so far stays, everybody hears of it."""

from __future__ import annotations

import time
from datetime import timedelta

import httpx
import pytest
from django.db import connection
from django.utils import timezone

from chat import responses
from chat.lifecycle.live import LiveResponse
from chat.lifecycle.record import LEASE
from chat.lifecycle.supervisor import supervisor
from chat.models import Conversation, Prompt, Response
from tests.chat.rows import answered, ask, carried_elsewhere, left_behind, row_of
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually, read_events

MESSAGE = "/chat/new/message/"


def stop(client: httpx.Client, row: Response) -> httpx.Response:
    """Stop it."""
    return client.post(f"/api/responses/{row.pk}/stop")


def test_a_running_response_is_stopped_with_its_text(api, serve):
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    body = {"prompt": "Say it", "stream": True}
    with api.stream("POST", MESSAGE, json=body) as asking:
        gate.admit(2)
        events = read_events(asking.iter_lines())
        assert next(events).data["text"] == "Hello"
        assert next(events).data["text"] == ", "
        row = Response.objects.get()
        with api.stream("GET", f"/api/responses/{row.pk}/events") as following:
            began = time.monotonic()
            stopped = stop(api, row)
            assert time.monotonic() - began < 1
            [done] = events
            *_, told = read_events(following.iter_lines())

    assert stopped.status_code == 200
    shown = stopped.json()
    assert (shown["status"], shown["finish_reason"]) == ("stopped", "cancelled")
    assert shown["text"] == "Hello, "
    assert done == told
    assert (done.name, done.data["finish_reason"]) == ("done", "cancelled")
    assert done.data["usage"]["completion_tokens"] == len("Hello, ")
    row.refresh_from_db()
    assert (row.status, row.text, row.worker, row.lease_until) == ("stopped", "Hello, ", "", None)
    assert engine.tickets[0].finish.reason == "cancelled"
    assert supervisor.active == 0


def test_a_stop_holds_no_database_connection_while_it_waits(api, serve, gate, monkeypatch):
    """A pool has few, and what writes the end of the response needs one."""
    serve(ScriptedEngine(gate=gate))
    wait, held = LiveResponse.wait, []

    def waiting(live: LiveResponse, timeout: float | None = None) -> bool:
        held.append(connection.connection is not None)
        return wait(live, timeout)

    monkeypatch.setattr(LiveResponse, "wait", waiting)
    with api.stream("POST", MESSAGE, json={"prompt": "Say it", "stream": True}) as asking:
        next(read_events(asking.iter_lines()))
        stop(api, Response.objects.get())

    assert held == [False]


def test_its_place_is_free_within_a_second(api, serve, gate):
    serve(ScriptedEngine(gate=gate, max_requests=1))
    with api.stream("POST", MESSAGE, json={"prompt": "First", "stream": True}):
        began = time.monotonic()
        assert stop(api, Response.objects.get()).json()["status"] == "stopped"
        gate.set()
        assert api.post(MESSAGE, json={"prompt": "Second"}).status_code == 200
        assert time.monotonic() - began < 1


def test_a_response_that_waits_for_its_first_token_is_stopped(api, serve, gate):
    serve(ScriptedEngine(gate=gate))
    with api.stream("POST", MESSAGE, json={"prompt": "Say it", "stream": True}) as asking:
        shown = stop(api, Response.objects.get()).json()
        [done] = read_events(asking.iter_lines())

    assert (shown["status"], shown["text"], shown["token_ids"]) == ("stopped", "", [])
    assert (done.name, done.data["finish_reason"]) == ("done", "cancelled")


def test_a_caller_that_waits_for_json_gets_the_text_so_far(user, serve, api):
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", world", gate=gate))
    accepted = ask(user)
    gate.admit()
    eventually(lambda: accepted.live.text)
    responses.stop(row_of(accepted))

    assert responses.answer(accepted).finish_reason == "cancelled"
    assert accepted.live.text == "Hello"


@pytest.mark.parametrize("status", ["done", "stopped", "failed", "interrupted"])
def test_what_has_ended_stays_as_it_is(api, user, engine, status):
    row = answered(user, "Hello", status=status, error="Why.", finished_at=timezone.now())
    before = api.get(f"/api/responses/{row.pk}/").json()

    for _ in range(2):
        answer = stop(api, row)
        assert (answer.status_code, answer.json()) == (200, before)


def test_stopping_twice_is_stopping_once(api, user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    row = row_of(ask(user))
    first, second = stop(api, row).json(), stop(api, row).json()

    assert first == second
    assert first["status"] == "stopped"


def test_nobody_stops_anothers_response(other_api, user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    accepted = ask(user)
    answer = stop(other_api, row_of(accepted))

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert row_of(accepted).active
    gate.set()
    assert accepted.live.wait(10)
    assert accepted.live.outcome.status == "done"


def test_another_process_is_asked_to_stop_its_response(api, user, engine, monkeypatch):
    monkeypatch.setattr("chat.responses.SETTLES_WITHIN", 0.01)
    row = carried_elsewhere(user, "Hel")
    shown = stop(api, row).json()

    row.refresh_from_db()
    assert row.stop_requested
    assert (row.status, row.worker, row.text) == ("streaming", "another-host:1", "Hel")
    assert shown["status"] == "streaming"


def test_a_stop_waits_until_the_other_process_did_it(api, user, engine):
    row = carried_elsewhere(user, "Hel")
    with api.stream("GET", f"/api/responses/{row.pk}/events") as following:
        events = read_events(following.iter_lines())
        next(events)

        def settle() -> None:
            """What the other process does when it sees the request."""
            asked = Response.objects.filter(pk=row.pk, stop_requested=True)
            if asked.update(status="stopped", finish_reason="cancelled", text="Hello"):
                return
            raise AssertionError("nobody asked")

        Response.objects.filter(pk=row.pk).update(stop_requested=True)
        settle()
        assert stop(api, row).json()["status"] == "stopped"
        piece, done = events

    assert (piece.data["text"], done.data["finish_reason"]) == ("lo", "cancelled")


def test_a_stop_from_another_process_is_seen_by_the_one_that_carries_it(user, serve):
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", world", gate=gate))
    accepted = ask(user)
    gate.admit()
    eventually(lambda: row_of(accepted).text)
    began = time.monotonic()
    Response.objects.filter(pk=accepted.response_id).update(stop_requested=True)

    assert accepted.live.wait(5)
    assert time.monotonic() - began < 1
    row = row_of(accepted)
    assert (row.status, row.text, row.finish_reason) == ("stopped", "Hello", "cancelled")


@pytest.mark.parametrize("text", ["", "Hel"])
@pytest.mark.parametrize("lease", [timedelta(seconds=-1), timedelta(hours=1)], ids=str)
def test_a_response_that_nobody_carries_is_stopped_at_once(api, user, engine, text, lease):
    """Nobody's is also what has a lease that nobody writes: the clock was set back since."""
    row = left_behind(user, text, lease_until=timezone.now() + lease)
    shown = stop(api, row).json()

    assert (shown["status"], shown["text"], shown["finish_reason"]) == (
        "stopped",
        text,
        "cancelled",
    )
    assert shown["completion_tokens"] == len(text)
    row.refresh_from_db()
    assert (row.lease_until, row.continuation) == (None, None)
    supervisor.start(recover=True)
    supervisor._look()
    assert engine.prompts == []


def resend(api, row):
    """The next prompt of a client that sends all that it has read."""
    read = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": row.text}]
    messages = [*read, {"role": "user", "content": "Go on"}]
    assert api.post("/v1/chat/completions", json={"messages": messages}).status_code == 200
    return Prompt.objects.get(content="Go on")


def test_a_client_that_resends_a_text_stopped_by_nobody_goes_on_in_its_conversation(
    api, user, engine
):
    row = left_behind(user, "Hel")
    stop(api, row)

    assert resend(api, row).follows == row
    assert Conversation.objects.count() == 1


@pytest.mark.parametrize(
    ("columns", "status"),
    [({"stop_requested": True}, "stopped"), ({"revision": "r0"}, "interrupted")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_so_does_one_whose_text_ended_with_its_process(api, user, engine, columns, status):
    row = left_behind(user, "Hel", **columns)
    supervisor.start(recover=True)
    eventually(lambda: Response.objects.filter(status=status).first())

    assert resend(api, row).follows == row
    assert Conversation.objects.count() == 1


def test_a_row_that_cannot_be_read_can_be_stopped(api, user, engine):
    row = left_behind(user, "Hel", continuation={"something": "else"})

    assert stop(api, row).json()["status"] == "stopped"


def test_a_stop_needs_no_model(api, user):
    row = left_behind(user, "Hel")

    assert stop(api, row).json()["status"] == "stopped"


def test_who_dies_with_a_stop_request_leaves_a_response_that_is_stopped(user, engine):
    later = timezone.now() + LEASE
    row = left_behind(user, "Hel", lease_until=later)
    responses.stop(row)
    Response.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    supervisor.start(recover=True)

    found = eventually(lambda: Response.objects.filter(status="stopped").first())
    assert (found.text, found.finish_reason, found.completion_tokens) == ("Hel", "cancelled", 3)
    assert engine.prompts == []


def test_a_response_that_is_removed_while_it_is_being_stopped_is_not_there(api, user, monkeypatch):
    row = answered(user, "Hi")
    monkeypatch.setattr(responses, "stop", lambda row: row.prompt.conversation.delete())

    assert stop(api, row).status_code == 404


def test_a_response_that_is_removed_before_it_is_followed_has_its_end(user):
    row = answered(user, "Hi")
    row.prompt.conversation.delete()

    live = responses.follow(row)

    assert live.outcome is not None
    assert "removed" in live.outcome.error
