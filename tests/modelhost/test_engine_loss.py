"""An engine that cannot come back: its process is told, and its tickets end or stay."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from modelhost import dispatcher
from modelhost.errors import NotReady
from tests.modelhost.deaths import Panic, crew
from tests.modelhost.questions import PROMPT, WARM


class Listener:
    """Is told, and remembers on which threads."""

    def __init__(self):
        self.threads = []
        self._told = threading.Event()

    def __call__(self):
        self.threads.append(threading.current_thread())
        self._told.set()

    def wait(self):
        assert self._told.wait(10)


def test_where_no_restart_is_possible_the_process_is_told_once_and_the_tickets_stay(doomed):
    engine, bomb = doomed
    engine.restartable = False
    listener = Listener()
    engine.when_lost(listener)
    with bomb.held():
        bomb.arm(10)
        tickets = crew(engine, 4)

    listener.wait()

    engine._dispatcher.join(10)
    assert len(listener.threads) == 1
    assert listener.threads[0] not in (threading.current_thread(), engine._dispatcher)
    assert engine.lost
    assert not engine.alive
    assert engine.restarts == 0
    assert all(ticket.finish is None for ticket in tickets)
    assert all(ticket.delivered for ticket in tickets)
    with pytest.raises(NotReady):
        engine.submit(PROMPT, WARM)
    tickets[0].cancel()
    assert engine.active == 3
    engine.stop()
    assert [ticket.finish.error for ticket in tickets] == ["", *["The server is stopping."] * 3]


def test_who_listens_after_the_loss_is_told_as_well(doomed):
    engine, bomb = doomed
    engine.restartable = False
    bomb.arm(3)
    engine.submit(PROMPT, WARM)
    engine._dispatcher.join(10)
    listener = Listener()

    engine.when_lost(listener)

    listener.wait()


def test_where_nobody_listens_the_tickets_of_a_lost_engine_end(doomed):
    engine, bomb = doomed
    engine.restartable = False
    bomb.arm(5)

    ticket = engine.submit(PROMPT, WARM)

    assert ticket.wait(10)
    assert ticket.finish.error == "The engine died or hung while it worked on this generation."
    assert engine.lost


# The thread lives and makes no step


def test_an_engine_that_hangs_is_lost_and_the_process_is_told(serve, load_tiny, gate):
    loaded = load_tiny()
    engine = serve(loaded, patience=0.3)
    listener = Listener()
    engine.when_lost(listener)
    gate.guard(loaded.model)

    ticket = engine.submit(PROMPT, WARM)

    listener.wait()
    assert engine.restartable, "even where a death would be mended: a thread cannot be ended"
    assert engine.lost
    assert not engine.alive
    assert ticket.finish is None, "the next process goes on with it"
    with pytest.raises(NotReady):
        engine.submit(PROMPT, WARM)
    gate.open()


def test_an_engine_without_work_does_not_hang(serve, ids_of):
    engine = serve(patience=1.0)  # a step on a busy machine takes less

    for _ in range(2):
        engine._dispatcher.join(2.2)  # two heartbeats and more without a step
        assert len(ids_of(engine.submit(PROMPT, WARM))) == 40

    assert engine.alive


def test_a_step_within_the_patience_is_no_hang(serve, load_tiny, gate, ids_of):
    loaded = load_tiny()
    engine = serve(loaded, patience=30.0)
    gate.guard(loaded.model)

    ticket = engine.submit(PROMPT, WARM)
    gate.wait_reached()
    engine._dispatcher.join(0.7)
    assert engine.alive

    gate.open()
    assert len(ids_of(ticket)) == 40


def test_time_in_which_the_process_was_paused_is_no_hang(
    serve, load_tiny, gate, ids_of, monkeypatch
):
    loaded = load_tiny()
    engine = serve(loaded, patience=30.0)
    gate.guard(loaded.model)
    ticket = engine.submit(PROMPT, WARM)
    gate.wait_reached()

    behind = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600.0)  # SIGSTOP and SIGCONT
    monkeypatch.setattr(dispatcher, "time", behind)
    engine._dispatcher.join(0.7)

    assert engine.alive
    gate.open()
    assert len(ids_of(ticket)) == 40


def test_an_engine_whose_answers_nobody_delivers_is_not_alive(serve):
    engine = serve()
    engine._dispatcher.finish()
    engine._dispatcher.join(10)

    assert not engine.alive
    with pytest.raises(NotReady):
        engine.submit(PROMPT, WARM)


def test_whatever_the_dispatchers_steps_raise_the_answers_come(serve, ids_of):
    engine = serve()
    expected = ids_of(engine.submit(PROMPT, WARM))
    place, panics = engine._jobs.place, [Panic()] * 3

    def panic_first():
        if panics:
            raise panics.pop()
        place()

    engine._jobs.place = panic_first

    assert ids_of(engine.submit(PROMPT, WARM)) == expected
    assert not panics
