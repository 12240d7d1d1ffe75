"""Following a response that another process carries: its row is the log.

The other process is played by the test, which writes the row.
"""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from django.utils import timezone

from chat.lifecycle import recovery, remote
from chat.lifecycle.record import WORKER
from chat.lifecycle.supervisor import supervisor
from chat.models import Response
from tests.chat.rows import carried_elsewhere, left_behind
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually, opening_of, read_events, stream, text_of

pytestmark = pytest.mark.usefixtures("engine")


def events_of(row: Response, after: int = 0) -> str:
    """The address of its stream behind a cursor."""
    return f"/api/responses/{row.pk}/events?after={after}"


def write(row: Response, **columns) -> None:
    """What the other process writes."""
    Response.objects.filter(pk=row.pk).update(**columns)


def test_text_is_shown_as_it_grows_and_then_the_end(api, user):
    row = carried_elsewhere(user, "Hel")
    with api.stream("GET", events_of(row, 1)) as response:
        events = read_events(response.iter_lines())
        assert next(events).data["text"] == "el"
        write(row, text="Hello")
        assert next(events).data["text"] == "lo"
        write(row, text="Hello, world", status="done", finish_reason="stop", completion_tokens=9)
        piece, done = events

    assert (piece.data["text"], piece.id) == (", world", f"{row.pk.hex}:12")
    assert (done.name, done.data["finish_reason"]) == ("done", "stop")
    assert done.data["usage"]["completion_tokens"] == 9


def test_a_row_that_cannot_be_read_lets_its_readers_go_and_keeps_no_others(api, user):
    odd, other = carried_elsewhere(user, "Hel"), carried_elsewhere(user, "Hel")
    with (
        api.stream("GET", events_of(odd)) as first,
        api.stream("GET", events_of(other)) as second,
    ):
        told, others = read_events(first.iter_lines()), read_events(second.iter_lines())
        assert next(told).data["text"] == next(others).data["text"] == "Hel"
        write(odd, status="done", tool_calls=[{"of": "another version"}])
        assert list(told) == []
        write(other, text="Hello", status="done", finish_reason="stop")
        assert [event.name for event in others] == ["message", "done"]


def test_an_end_without_news_is_an_end(api, user):
    row = carried_elsewhere(user, "Hello")
    with api.stream("GET", events_of(row, 5)) as response:
        lines = response.iter_lines()
        assert opening_of(lines) == f"{row.pk.hex}:5"
        write(row, status="stopped", finish_reason="cancelled")
        [done] = read_events(lines)

    assert (done.name, done.data["finish_reason"]) == ("done", "cancelled")


def test_what_failed_there_fails_here(api, user):
    row = carried_elsewhere(user, "Hel")
    with api.stream("GET", events_of(row)) as response:
        events = read_events(response.iter_lines())
        next(events)
        write(row, status="failed", finish_reason="error", error="The engine died.")
        [error] = events

    assert (error.name, error.data["detail"]) == ("error", "The engine died.")


def test_two_readers_cost_one_and_get_the_same(api, user):
    row = carried_elsewhere(user)
    with (
        api.stream("GET", events_of(row)) as one,
        api.stream("GET", events_of(row)) as two,
    ):
        live = supervisor.live(row.pk)
        eventually(lambda: live.readers == 2)
        write(row, text="Hello", status="done")
        texts = [text_of(read_events(response.iter_lines())) for response in (one, two)]

    assert texts == ["Hello", "Hello"]


def test_a_response_that_is_removed_ends_for_who_follows_it(api, user):
    row = carried_elsewhere(user, "Hel")
    with api.stream("GET", events_of(row)) as response:
        events = read_events(response.iter_lines())
        next(events)
        row.prompt.conversation.delete()
        [done] = events

    assert (done.name, done.data["finish_reason"]) == ("done", "cancelled")


def test_a_follower_is_let_go_without_an_end_when_this_process_stops(api, user):
    row = carried_elsewhere(user, "Hel")
    with api.stream("GET", events_of(row)) as response:
        events = read_events(response.iter_lines())
        next(events)
        live = supervisor.live(row.pk)
        supervisor.stop()
        assert live.ended
        assert list(events) == []


def test_a_follower_stays_while_this_process_takes_the_response_over(api, user, serve):
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    row = carried_elsewhere(user, "Hel")
    supervisor.start(recover=True)
    with api.stream("GET", events_of(row, 1)) as response:
        events = read_events(response.iter_lines())
        assert next(events).data["text"] == "el"
        write(row, lease_until=timezone.now() - timedelta(seconds=1))  # the other one died
        eventually(lambda: supervisor.carries(row.pk))
        gate.set()
        rest = list(events)

    assert text_of(rest) == "lo, world"
    assert (rest[-1].name, rest[-1].id) == ("done", f"{row.pk.hex}:12")


def test_a_follower_stays_when_another_process_took_the_response_over(api, serve):
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    body = {"prompt": "Say it", "stream": True}
    with api.stream("POST", "/chat/new/message/", json=body) as response:
        gate.admit()
        events = read_events(response.iter_lines())
        assert next(events).data["text"] == "Hello"
        row = Response.objects.get()
        write(row, worker="another-host:1", text="Hel", token_ids=[*map(ord, "Hel")])
        eventually(lambda: not supervisor.carries(row.pk))
        assert engine.tickets[0].finish.reason == "cancelled"
        write(row, text="Hello, world", status="done", finish_reason="stop")
        rest = list(events)

    assert text_of(rest) == ", world"
    assert rest[-1].name == "done"


def test_a_response_that_comes_back_is_written_from_its_ids(api, user, serve):
    """Its reader knows more of the text than the row that is taken over."""
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    row = carried_elsewhere(user, "Hello, w")
    supervisor.start(recover=True)
    with api.stream("GET", events_of(row)) as response:
        events = read_events(response.iter_lines())
        assert next(events).data["text"] == "Hello, w"
        past = timezone.now() - timedelta(seconds=1)
        write(row, text="Hel", token_ids=[*map(ord, "Hel")], lease_until=past)
        eventually(lambda: supervisor.carries(row.pk))
        gate.set()
        rest = list(events)

    assert text_of(rest) == "orld"
    row.refresh_from_db()
    assert (row.status, row.text) == ("done", "Hello, world")


def rest_behind(api: httpx.Client, row: Response, cursor: str) -> str:
    """What a client that had this cursor gets once more, to the end."""
    return text_of(stream(api, "GET", events_of(row), headers={"Last-Event-ID": cursor}))


@pytest.mark.parametrize("had", [0, 3, 6, 10, 12])
def test_a_client_that_had_more_than_was_stored_gets_exactly_the_rest(api, user, serve, had):
    serve(ScriptedEngine("Hello", ", wor", "ld and all"))
    row = left_behind(user, "Hello,")
    supervisor.start(recover=True)

    whole = "Hello, world and all"
    assert rest_behind(api, row, f"{row.pk.hex}:{had}") == whole[had:]


def test_a_cursor_beyond_the_stored_text_waits_for_what_is_behind_it(api, user, serve):
    gate = Turnstile()
    serve(ScriptedEngine("Hello,", " wor", "ld", " and", gate=gate))
    row = left_behind(user, "Hello,")
    with api.stream("GET", events_of(row, 10)) as response:
        lines = response.iter_lines()
        assert opening_of(lines) == f"{row.pk.hex}:10"
        supervisor.start(recover=True)
        gate.admit(2)
        events = read_events(lines)
        assert next(events).data["text"] == "ld"
        gate.set()
        assert text_of(events) == " and"


def test_who_takes_a_response_over_while_it_is_stopped_hears_of_that(user, monkeypatch):
    row = left_behind(user, "Hel")

    def taken_over_by_then(left: Response) -> str:
        [claimed] = recovery.claim(ours=[])
        return recovery.fingerprint_of(claimed)

    monkeypatch.setattr(remote, "fingerprint_of", taken_over_by_then)
    remote.request_stop(row)

    row.refresh_from_db()
    assert (row.status, row.worker, row.stop_requested) == ("streaming", WORKER, True)
    assert remote.stop_requests() == [row.pk]
