"""Places in the line, and the engine's end: nobody is left waiting."""

from __future__ import annotations

import subprocess
import sys

import pytest

from modelhost.errors import NotReady
from modelhost.types import FinishReason
from tests.modelhost.questions import ASKED, PROMPT, WARM


def test_a_place_in_the_line_is_known_until_the_first_token(load_tiny, serve, gate, ids_of):
    loaded = load_tiny()
    engine = serve(loaded)
    gate.guard(loaded.model)
    tickets = [engine.submit(PROMPT, WARM) for _ in range(5)]
    resumed = engine.submit(PROMPT, WARM, resume=[30, 31])

    assert [engine.position(ticket) for ticket in (*tickets, resumed)] == [0, 1, 2, 3, 4, 5]
    tickets[1].cancel()
    assert [engine.position(ticket) for ticket in tickets] == [0, 0, 1, 2, 3]

    gate.open()
    assert ids_of(resumed)
    assert all(engine.position(ticket) == 0 for ticket in tickets)


def test_what_was_resumed_is_told_as_the_text_that_it_was(serve, finish):
    engine = serve()
    first = engine.submit(PROMPT, WARM)
    pieces = finish(first)

    for cut in range(0, 41, 8):
        shown = "".join(piece.text for piece in pieces[:cut])
        second = engine.submit(PROMPT, WARM, resume=first.delivered[:cut])
        assert second.resumed_text == shown


def test_stopping_ends_every_ticket_and_refuses_new_ones(load_tiny, serve, gate):
    loaded = load_tiny()
    engine = serve(loaded)
    gate.guard(loaded.model)
    tickets = [engine.submit(PROMPT, WARM) for _ in range(4)]
    gate.wait_reached()
    gate.open()

    engine.stop()
    engine.stop()  # twice is once

    assert all(ticket.wait(0) for ticket in tickets)
    assert {ticket.finish.reason for ticket in tickets} <= {FinishReason.ERROR, FinishReason.LENGTH}
    errors = {ticket.finish.error for ticket in tickets if ticket.finish.error}
    assert errors <= {"The server is stopping."}
    assert not engine.alive
    assert engine.active == 0
    with pytest.raises(NotReady):
        engine.submit(PROMPT, ASKED)


def test_the_engines_threads_are_daemons_whoever_starts_it(serve):
    engine = serve()

    assert engine._manager._generation_thread.daemon
    assert engine._dispatcher.daemon


FORGETFUL = """
import sys
from modelhost.host import Host
from modelhost.types import ModelSpec, Sampling

host = Host()
host.start(ModelSpec(model=sys.argv[1], device="cpu"))
engine = host.wait(60)
for _ in range(8):
    engine.submit([10, 11], Sampling(max_tokens=500))
print("busy", flush=True)
"""


def test_a_process_that_forgets_to_stop_a_busy_engine_ends_by_itself(tiny_folder):
    command = [sys.executable, "-c", FORGETFUL, str(tiny_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "busy\n"

        assert process.wait(10) == 0
