"""The engines without a model keep the real one's promises, or tests with them prove nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from modelhost.types import FinishReason, Sampling, Turn
from tests.fakes import STOP, ScriptedEngine
from tests.witness import WitnessEngine, witness_text

PLAIN = Sampling(max_tokens=200, seed=7)


@pytest.fixture(params=["scripted", "witness"])
def engine(request):
    made = ScriptedEngine("al", "pha", ":7") if request.param == "scripted" else WitnessEngine()
    yield made
    made.stop()


def ask(engine, choice=PLAIN, text="alpha 4", **options):
    return engine.submit(engine.render([Turn("user", text)]).token_ids, choice, **options)


def read(ticket):
    async def collect():
        async with asyncio.timeout(10):
            return "".join([piece.text async for piece in ticket])

    return asyncio.run(collect())


def test_cut_anywhere_and_continued_the_answer_is_the_same(engine):
    first = ask(engine)
    whole = read(first)

    assert first.delivered == [*map(ord, whole), STOP]
    for cut in range(len(whole) + 2):
        rest = ask(engine, resume=first.delivered[:cut])
        assert rest.resumed_text == whole[:cut]
        assert rest.resumed_text + read(rest) == whole
        assert rest.finish == first.finish


def test_a_continued_answer_ends_where_max_tokens_says(engine):
    first = ask(engine, Sampling(max_tokens=6, seed=7))
    assert read(first) == "alpha:"
    assert first.finish.reason is FinishReason.LENGTH

    for cut in range(7):
        rest = ask(engine, Sampling(max_tokens=6, seed=7), resume=first.delivered[:cut])
        assert rest.resumed_text + read(rest) == "alpha:"
        assert rest.finish == first.finish


def test_a_witness_tells_many_apart():
    engine = WitnessEngine()

    tickets = [ask(engine, Sampling(max_tokens=900, seed=n), f"n{n} {n}") for n in range(60)]

    texts = [read(ticket) for ticket in tickets]
    assert texts == [witness_text(f"n{n}", n, n) for n in range(60)]
    assert engine.generations == 60
    assert engine.active == 0
    engine.stop()


def test_a_cancelled_witness_says_no_more_and_a_stopped_one_leaves_no_thread():
    engine = WitnessEngine(every=60)
    first, second = ask(engine), ask(engine)
    assert engine.position(second) == 1

    first.cancel()

    assert (engine.active, engine.position(second)) == (1, 0)
    engine.stop()
    assert second.finish.error == "The server is stopping."
    assert "witness-player" not in {thread.name for thread in threading.enumerate()}


def test_they_bring_in_no_torch():
    code = "import sys, tests.witness; print({'torch', 'transformers'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
