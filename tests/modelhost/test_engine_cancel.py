"""Stop texts and cancels: a request leaves, and nothing of it stays."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from modelhost.checkpoints import Loaded
from modelhost.errors import Busy
from modelhost.types import FinishReason
from tests.modelhost.deaths import Panic
from tests.modelhost.questions import ASKED, PROMPT, WARM, generate, prompts


def test_a_stop_text_ends_the_generation_and_frees_its_place(serve, finish):
    engine = serve(max_requests=1)
    whole = finish(engine.submit(PROMPT, replace(WARM, max_tokens=400)))
    text = "".join(piece.text for piece in whole)
    stop = text[20:23]
    assert "\N{REPLACEMENT CHARACTER}" not in stop

    ticket = engine.submit(PROMPT, replace(WARM, max_tokens=400, stop=(stop,)))

    assert "".join(piece.text for piece in finish(ticket)) == text[: text.index(stop)]
    assert ticket.finish.reason is FinishReason.STOP
    assert ticket.finish.usage.completion_tokens < 60
    assert engine.active == 0
    assert finish(engine.submit(PROMPT, ASKED))


def test_a_cancelled_request_frees_its_place_and_the_engine_forgets_it(
    serve, load_tiny, gate, finish
):
    loaded = load_tiny()
    engine = serve(loaded, max_requests=1)
    gate.guard(loaded.model)
    ticket = engine.submit(PROMPT, replace(WARM, max_tokens=400))
    gate.wait_reached()

    ticket.cancel()
    gate.open()

    after = engine.submit(PROMPT, ASKED)
    assert len(finish(after)) == 8
    assert finish(ticket) == []
    assert ticket.finish.reason is FinishReason.CANCELLED
    scheduler = engine._manager.batch_processor.scheduler
    assert not scheduler.active_requests
    assert not scheduler.waiting_requests


def test_three_hundred_starts_and_cancels_leave_nothing_behind(serve, ids_of):
    engine = serve(max_requests=400)
    expected = ids_of(engine.submit(PROMPT, WARM))

    tickets = [engine.submit(PROMPT, replace(WARM, seed=seed)) for seed in range(300)]
    threads = [
        threading.Thread(
            target=lambda some: [ticket.cancel() for ticket in some], args=(tickets[at::3],)
        )
        for at in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert engine.active == 0
    assert ids_of(engine.submit(PROMPT, WARM)) == expected
    processor = engine._manager.batch_processor
    assert not processor.scheduler.active_requests
    assert not processor.scheduler.waiting_requests
    assert processor.cache.compute_free_capacity() == 1.0
    assert engine._manager.output_router.output_queue.empty()
    assert engine.restarts == 0


def test_a_request_whose_cancel_came_too_early_is_cancelled_when_it_shows(serve, ids_of):
    engine = serve()
    engine._manager.cancel_request("early")
    ids_of(engine.submit(PROMPT, ASKED))  # by now the engine has seen the cancel
    engine._manager.add_request(
        PROMPT, request_id="early", max_new_tokens=450, streaming=True, sampling=ASKED
    )

    ids_of(engine.submit(PROMPT, WARM))

    assert "early" not in engine._manager.batch_processor.scheduler.active_requests


def test_a_request_beyond_the_allowed_number_is_refused_until_one_ends(
    serve, load_tiny, gate, ids_of
):
    loaded = load_tiny()
    engine = serve(loaded, max_requests=2)
    gate.guard(loaded.model)
    first, second = (engine.submit(PROMPT, ASKED) for _ in range(2))

    with pytest.raises(Busy):
        engine.submit(PROMPT, ASKED)
    with pytest.raises(Busy):
        engine.validate(PROMPT, ASKED)

    gate.open()
    assert ids_of(first) == ids_of(second)
    assert len(ids_of(engine.submit(PROMPT, ASKED))) == 8


def test_threads_that_submit_at_once_do_not_exceed_the_allowed_number(serve, load_tiny, gate):
    loaded = load_tiny()
    engine = serve(loaded, max_requests=3)
    gate.guard(loaded.model)
    together = threading.Barrier(16)
    outcomes = []

    def submit():
        together.wait()
        try:
            outcomes.append(engine.submit([10] * 100, ASKED))
        except Busy:
            outcomes.append(None)

    threads = [threading.Thread(target=submit) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(outcomes) - outcomes.count(None) == 3


@pytest.mark.parametrize("kind", [KeyError, Panic])
def test_trouble_in_one_requests_decoder_is_its_own(load_tiny, serve, ids_of, kind):
    loaded = load_tiny()
    answer = generate(loaded.model, PROMPT, 8)
    broken = generate(loaded.model, prompts(3)[2], 8)
    poison = next(one for one in broken if one not in answer)

    def decode(token_ids):
        if poison in token_ids:
            raise kind(poison)
        return loaded.format.decode(token_ids)

    trouble = SimpleNamespace(
        decode=decode, stop_ids=loaded.format.stop_ids, answer=loaded.format.answer
    )
    engine = serve(Loaded(loaded.model, trouble))

    bad = engine.submit(prompts(3)[2], ASKED)
    good = engine.submit(PROMPT, ASKED)

    assert ids_of(good) == answer
    assert bad.wait(10)
    assert bad.finish.reason is FinishReason.ERROR
    assert bad.finish.error == f"{kind.__name__} in the decoder."
    assert engine.active == 0
