"""The end of the process is not the end of its responses: their rows stay open for the next one."""

from __future__ import annotations

import threading

import pytest
from django.db import OperationalError
from django.utils import timezone

from chat import responses
from chat.errors import ConversationBusy, ServerStopping, Unanswered
from chat.lifecycle import recorder
from chat.lifecycle.live import LiveResponse
from chat.lifecycle.supervisor import supervisor
from chat.models import Conversation, Response
from chat.questions import SamplingOptions
from modelhost.types import FinishReason
from tests.chat.holding import Hold
from tests.chat.rows import ask, left_behind, row_of
from tests.fakes import STOP, ScriptedEngine, Turnstile
from tests.web import eventually, stream


def test_what_is_cut_stays_open_with_its_text(user, serve):
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    accepted = ask(user)
    gate.admit()
    eventually(lambda: accepted.live.text)
    supervisor.stop()

    row = row_of(accepted)
    assert (row.status, row.text, row.token_ids) == ("streaming", "Hello", [*map(ord, "Hello")])
    assert (row.worker, row.error, row.finished_at) == ("", "", None)
    assert row.lease_until <= timezone.now()
    assert row.continuation["prompt_ids"]
    assert supervisor.active == 0


def test_what_the_database_refuses_at_the_end_is_written_while_there_is_time(
    user, serve, monkeypatch
):
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    accepted = ask(user)
    update, refused = recorder.update_active, []

    def refusing(worker, changes):
        if supervisor._stopping and len(refused) < 2:
            refused.append(changes)
            raise OperationalError("the server closed the connection")
        return update(worker, changes)

    monkeypatch.setattr(recorder, "update_active", refusing)
    gate.admit()
    eventually(lambda: accepted.live.text)
    supervisor.stop()

    row = row_of(accepted)
    assert len(refused) == 2
    assert (row.status, row.text, row.worker) == ("streaming", "Hello", "")
    assert row.lease_until <= timezone.now()


def test_whoever_waits_is_told_to_ask_again(user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    accepted = ask(user)
    supervisor.stop()

    assert accepted.live.ended
    assert accepted.live.outcome is None
    with pytest.raises(Unanswered) as caught:
        responses.answer(accepted)
    assert isinstance(caught.value.cause, ServerStopping)


def test_after_a_stop_it_can_begin_again(user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    first = ask(user)
    supervisor.stop()
    supervisor.stop()
    gate.set()
    second = ask(user)

    assert second.live.wait(10)
    assert (row_of(first).status, row_of(second).status) == ("queued", "done")


@pytest.mark.parametrize("kept", [True, False], ids=["still followed", "forgotten"])
def test_the_next_start_goes_on_with_it(user, serve, kept):
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    accepted = ask(user)
    gate.admit()
    eventually(lambda: accepted.live.text)
    supervisor.stop()
    pk, follower = accepted.response_id, accepted.live if kept else None
    accepted = None
    gate.set()
    supervisor.start(recover=True)

    row = eventually(lambda: Response.objects.filter(pk=pk, status="done").first())
    assert (row.text, row.finish_reason) == ("Hello, world", "stop")
    assert row.token_ids == [*map(ord, "Hello, world"), STOP]
    assert engine.resumes == [[], [*map(ord, "Hello")]]
    assert follower is None or follower.text == "Hello"  # its stream had ended


def test_what_may_become_a_stop_text_is_not_let_out(user, serve):
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", w", "orld", gate=gate))
    accepted = ask(user, sampling=SamplingOptions(stop=(", world!",)))
    gate.admit(2)
    eventually(lambda: len(row_of(accepted).token_ids) == len("Hello, w"))
    supervisor.stop()
    assert row_of(accepted).text == accepted.live.text == "Hello"

    gate.set()
    supervisor.start(recover=True)
    row = eventually(lambda: Response.objects.filter(status="done").first())
    assert row.text == "Hello, world"


@pytest.fixture
def commits(monkeypatch) -> Hold:
    """Commits are slow: what ends meanwhile is not written yet."""
    hold, news = Hold(), recorder._news

    def held(record):
        hold()
        return news(record)

    monkeypatch.setattr(recorder, "_news", held)
    return hold


@pytest.fixture
def loop(engine) -> Hold:
    """The supervisor's loop is slow: what the engine made was not taken yet."""
    hold = Hold()
    supervisor.start()
    supervisor._loop.call_soon_threadsafe(hold)
    assert hold.reached.wait(10)
    return hold


def stop_meanwhile(hold: Hold) -> None:
    """The process begins to stop while something is slow, which then goes on."""
    stopping = threading.Thread(target=supervisor.stop)
    stopping.start()
    eventually(lambda: supervisor._stopping)
    hold.released.set()
    stopping.join(10)


def test_an_end_that_is_not_written_yet_is_the_end(user, serve, commits):
    engine = serve(ScriptedEngine("Hello", ", wor"))
    accepted = ask(user, sampling=SamplingOptions(stop=(", world",)))
    assert commits.reached.wait(10)
    eventually(lambda: engine.tickets[0].finish)
    stop_meanwhile(commits)

    row = row_of(accepted)
    assert (row.status, row.text, row.finish_reason) == ("done", "Hello, wor", "stop")
    assert accepted.live.outcome.status == "done"


def test_an_end_that_was_not_taken_yet_is_the_end_with_all_its_text(user, serve, loop):
    engine = serve(ScriptedEngine("Hello", ", wor"))
    accepted = ask(user, sampling=SamplingOptions(stop=(", world",)))
    eventually(lambda: engine.tickets[0].finish)
    stop_meanwhile(loop)

    row = row_of(accepted)
    assert (row.status, row.text, row.finish_reason) == ("done", "Hello, wor", "stop")
    assert row.token_ids == [*map(ord, "Hello, wor"), STOP]


def test_what_was_made_and_not_taken_yet_is_kept(user, serve, loop):
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hello", ", w", "orld", gate=gate))
    accepted = ask(user, sampling=SamplingOptions(stop=(", world!",)))
    gate.admit(2)
    eventually(lambda: len(engine.tickets[0].delivered) == len("Hello, w"))
    stop_meanwhile(loop)

    row = row_of(accepted)
    assert (row.status, row.text, row.worker) == ("streaming", "Hello", "")
    assert row.token_ids == [*map(ord, "Hello, w")]


def test_who_stopped_a_response_before_the_process_stops_has_stopped_it(user, serve, gate, commits):
    serve(ScriptedEngine("Hello", gate=gate))
    accepted = ask(user)
    assert commits.reached.wait(10)
    responses.stop(row_of(accepted))
    stop_meanwhile(commits)

    assert (row_of(accepted).status, row_of(accepted).finish_reason) == ("stopped", "cancelled")
    assert accepted.live.outcome.finish_reason == FinishReason.CANCELLED


def test_who_is_sent_away_because_the_process_stops_has_not_left(socket, serve, gate, commits):
    serve(ScriptedEngine("Hello", gate=gate))
    socket.ask("Say it", on_disconnect="stop")
    assert commits.reached.wait(10)
    thread = supervisor._thread
    supervisor.stop(timeout=0.0)
    assert socket.closed() == 4503
    commits.released.set()
    thread.join(10)

    row = Response.objects.get()
    assert (row.status, row.worker) == ("queued", "")


def test_a_live_response_that_was_suspended_is_not_used_again(user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    accepted = ask(user)
    supervisor.stop()

    again = supervisor.live(accepted.response_id)
    assert isinstance(again, LiveResponse)
    assert again is not accepted.live
    assert not again.ended


def test_a_prompt_cannot_pass_one_that_waits_for_the_next_process(user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    first = ask(user)
    supervisor.stop()

    with pytest.raises(ConversationBusy):
        ask(user, "And?", conversation=first.prompt.conversation)


def test_an_interrupted_answer_can_be_followed_by_the_next_prompt(user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    first = ask(user)
    supervisor.stop()
    Response.objects.update(status="interrupted", error="Another model is served now.")
    gate.set()
    second = ask(user, "b", conversation=first.prompt.conversation)

    assert second.live.wait(10)
    assert second.prompt.follows == row_of(first)


def test_after_a_drain_a_reader_gets_what_is_stored_and_no_end(api, user, engine):
    row = left_behind(user, "Hel")
    supervisor.start(recover=False)
    supervisor.drain(0)
    events = stream(api, "GET", f"/api/responses/{row.pk}/events")

    assert [event.data["text"] for event in events] == ["Hel"]


def test_after_a_drain_nothing_is_taken_over(user, engine):
    supervisor.start(recover=True)
    supervisor.drain(0)
    row = left_behind(user, "Hel")
    supervisor._look()

    row.refresh_from_db()
    assert row.status == "streaming"
    assert engine.prompts == []
    assert Conversation.objects.count() == 1
