"""The supervisor's thread goes on whatever a round raises; where it cannot, that is noticed."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest
from django.db import OperationalError, connection
from django.db.utils import ConnectionHandler

from chat.lifecycle import recovery, upkeep
from chat.lifecycle import supervisor as module
from chat.lifecycle.record import Record
from chat.lifecycle.supervisor import supervisor
from chat.monitoring import health
from tests.chat.rows import ask, left_behind, row_of
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually


class Died(BaseException):
    """What no round may swallow."""


@pytest.fixture
def ended(monkeypatch):
    """How the supervisor's thread is made to end, once; set when it did."""
    happened = threading.Event()
    write = upkeep.Upkeep.write

    def end(self):
        if not happened.is_set():
            happened.set()
            raise Died
        write(self)

    def cause() -> None:
        monkeypatch.setattr(upkeep.Upkeep, "write", end)
        thread = supervisor._thread
        supervisor._loop.call_soon_threadsafe(supervisor._wake.set)
        assert happened.wait(10)
        thread.join(10)
        assert not thread.is_alive()

    return cause


def test_a_database_that_cannot_even_be_left_alone_ends_nothing(user, serve, monkeypatch):
    gate = Turnstile()
    serve(ScriptedEngine(gate=gate))
    supervisor.start(recover=True)
    accepted = ask(user)
    close, troubles = ConnectionHandler.close_all, threading.Semaphore(0)
    left = [30]

    def failing(connections: ConnectionHandler) -> None:
        if left[0] and threading.current_thread().name.startswith("chat-recorder"):
            left[0] -= 1
            troubles.release()
            raise OperationalError("the server closed the connection")
        close(connections)

    monkeypatch.setattr(ConnectionHandler, "close_all", failing)
    gate.set()
    for _ in range(30):  # writing, watching and looking all end with it
        assert troubles.acquire(timeout=10)

    assert accepted.live.wait(10)
    assert row_of(accepted).status == "done"


def test_no_connection_is_held_between_rounds(user, engine, monkeypatch):
    """A pool has few of them, and a process that is idle needs none."""
    held, whole = [], module._with_a_connection

    def watching(work) -> None:
        whole(work)
        held.append(connection.connection)

    monkeypatch.setattr(module, "_with_a_connection", watching)

    accepted = ask(user)

    assert accepted.live.wait(10)
    supervisor.stop()
    assert held
    assert set(held) == {None}


@pytest.mark.parametrize("work", ["write", "watch", "take_over"])
def test_nothing_that_a_round_raises_ends_the_thread(user, serve, monkeypatch, work):
    gate = Turnstile()
    serve(ScriptedEngine(gate=gate))
    supervisor.start(recover=True)
    accepted = ask(user)
    whole, raised = getattr(upkeep.Upkeep, work), threading.Semaphore(0)

    def failing(self) -> None:
        raised.release()
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(upkeep.Upkeep, work, failing)
    for _ in range(2):
        assert raised.acquire(timeout=10)
    monkeypatch.setattr(upkeep.Upkeep, work, whole)
    gate.set()

    assert accepted.live.wait(10)
    assert row_of(accepted).status == "done"


def test_a_thread_that_died_is_not_called_ready_and_the_process_is_replaced(
    user, engine, ended, monkeypatch
):
    lost: list[str] = []
    called = threading.Event()

    def on_lost() -> None:
        lost.append(threading.current_thread().name)
        called.set()

    monkeypatch.setattr(supervisor, "on_lost", on_lost)
    supervisor.start()
    assert health.readiness().status == 200
    ended()

    assert called.wait(10)
    assert len(lost) == 1
    assert "chat-supervisor" not in lost, "it joins that thread"
    answer = health.readiness()
    assert (answer.status, answer.body["status"]) == (503, "stopped")
    assert answer.headers["Retry-After"] == "5"


def test_where_nobody_replaces_the_process_the_next_prompt_starts_a_thread(user, serve, ended):
    gate = Turnstile()
    serve(ScriptedEngine(gate=gate))
    first = ask(user)
    ended()
    second = ask(user)
    gate.set()

    for accepted in (first, second):
        assert accepted.live.wait(10)
        assert row_of(accepted).status == "done"
    assert health.readiness().status == 200


def test_a_thread_that_does_not_get_round_is_not_called_ready(user, engine, monkeypatch):
    hold, reached = threading.Event(), threading.Event()

    def held(self) -> None:
        reached.set()
        hold.wait(20)

    supervisor.start()
    monkeypatch.setattr(upkeep.Upkeep, "write", held)
    assert reached.wait(10)
    assert health.readiness().status == 200
    monkeypatch.setattr(module, "SILENT", 0.0)
    assert health.readiness().status == 503
    monkeypatch.setattr(module, "SILENT", 5.0)
    hold.set()

    assert health.readiness().status == 200


def test_a_process_that_begins_is_ready_before_its_first_round(engine):
    supervisor.stop()
    supervisor._round_at = time.monotonic() - module.SILENT  # it was the last one long ago
    supervisor.start()

    assert health.readiness().status == 200


def test_a_generation_that_cannot_be_carried_on_ends(user, serve, monkeypatch):
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hel", "lo", gate=gate))
    accepted = ask(user)
    gate.admit()
    eventually(lambda: accepted.live.text)

    def take(record: Record, piece) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(Record, "take", take)
    gate.admit()

    assert accepted.live.wait(10)
    row = row_of(accepted)
    assert (row.status, row.text, row.error) == (
        "failed",
        "Hel",
        "The response could not be carried on.",
    )
    assert row.prompt_tokens == len(engine.prompts[0])
    assert engine.tickets[0].finish.reason == "cancelled"
    assert supervisor.active == 0


def test_what_a_commit_takes_is_no_time_between_commits(user, serve, monkeypatch):
    begun: list[float] = []
    commit, pause = upkeep.commit, threading.Event()

    def slow(records) -> None:
        begun.append(time.monotonic())
        pause.wait(module.COMMIT_EVERY * 0.75)
        commit(records)
        for record in records:
            record.dirty = True  # there is always something new

    gate = Turnstile()
    serve(ScriptedEngine(gate=gate))
    monkeypatch.setattr(upkeep, "commit", slow)
    ask(user)
    eventually(lambda: len(begun) > 6)

    apart = [after - before for before, after in pairwise(begun)]
    assert min(apart[1:]) < module.COMMIT_EVERY * 1.5
    assert module.COMMIT_EVERY < 0.25


def test_an_end_is_written_at_once_and_then_there_is_a_rest(user, engine, monkeypatch):
    monkeypatch.setattr(module, "COMMIT_EVERY", 3600.0)
    rounds: list[float] = []
    write = upkeep.Upkeep.write

    def counted(self) -> None:
        rounds.append(time.monotonic())
        write(self)

    monkeypatch.setattr(upkeep.Upkeep, "write", counted)
    asked = 10
    for _ in range(asked):
        assert ask(user).live.wait(10)

    assert len(rounds) < 2 * asked


def test_a_process_that_cannot_write_is_not_well_and_says_so_once(user, serve, monkeypatch, caplog):
    now = time.monotonic()
    broken = OperationalError("database or disk is full")
    commit, full = upkeep.commit, threading.Event()
    monkeypatch.setattr(upkeep, "commit", lambda due: broken if full.is_set() else commit(due))
    gate = Turnstile()
    serve(ScriptedEngine("Hello", gate=gate))
    full.set()
    accepted = ask(user)
    gate.set()
    eventually(lambda: supervisor._upkeep.failing_since)

    assert supervisor.well, "it may pass"
    monkeypatch.setattr(supervisor._upkeep, "failing_since", now - module.SILENT)
    assert not supervisor.well
    full.clear()
    assert accepted.live.wait(10)
    assert supervisor.well
    assert caplog.text.count("does not take responses") == 1


def test_a_database_that_is_away_for_a_moment_ends_nothing_that_is_taken_over(
    user, engine, monkeypatch
):
    row = left_behind(user, "Hel", stop_requested=True)
    [claimed] = recovery.claim(ours=[])

    def away(*_, **__):
        monkeypatch.undo()
        raise OperationalError("away")

    monkeypatch.setattr(recovery, "settle", away)
    with pytest.raises(OperationalError):
        recovery.recover(claimed, engine, supervisor.live(row.pk))
    row.refresh_from_db()
    assert row.status == "streaming"

    assert recovery.recover(claimed, engine, supervisor.live(row.pk)) is None
    row.refresh_from_db()
    assert (row.status, row.error) == ("stopped", "")
