"""What holds on a CPU holds for steps that are prepared before the last one's tokens are known.

The numbers are a CPU's; that the kernels of a card compute the same was tried on one
(docs/figures.md).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers.generation.continuous_batching.offloading_manager import OffloadingManager

from modelhost.errors import NotReady
from modelhost.types import FinishReason, Sampling
from tests.modelhost.double_buffering import double_buffered
from tests.modelhost.questions import ASKED, PROMPT, WARM, generate, prompts
from tests.modelhost.test_graphs import as_on_cuda

__all__ = ["as_on_cuda", "double_buffered"]  # fixtures

pytestmark = pytest.mark.usefixtures("double_buffered")

LONG = replace(WARM, max_tokens=400)


def test_steps_are_prepared_ahead(serve):
    assert serve()._manager.batch_processor.use_async_batching


def test_twenty_answers_at_once_are_what_generate_gives_alone(load_tiny, serve, ids_of):
    alone = load_tiny()
    engine = serve()

    tickets = [engine.submit(prompt, Sampling(max_tokens=40)) for prompt in prompts(20)]

    assert [ids_of(ticket) for ticket in tickets] == [
        generate(alone.model, prompt, 40, alone.format.stop_ids) for prompt in prompts(20)
    ]


@pytest.mark.usefixtures("as_on_cuda")
def test_padded_steps_that_are_prepared_ahead_give_the_same(load_tiny, serve, ids_of):
    alone = load_tiny()
    engine = serve()

    for _ in range(2):
        tickets = [engine.submit(prompt, Sampling(max_tokens=20)) for prompt in prompts(9)]
        assert [ids_of(ticket) for ticket in tickets] == [
            generate(alone.model, prompt, 20, alone.format.stop_ids) for prompt in prompts(9)
        ]


def test_a_seed_gives_one_answer_alone_in_company_and_continued(serve, ids_of):
    engine = serve()
    alone = ids_of(engine.submit(PROMPT, WARM))

    company = [engine.submit(PROMPT, replace(WARM, seed=seed)) for seed in range(12)]
    again = engine.submit(PROMPT, WARM)
    rests = [engine.submit(PROMPT, WARM, resume=alone[:cut]) for cut in (1, 7, 39)]

    assert ids_of(again) == alone
    assert [ids_of(rest) for rest in rests] == [alone[cut:] for cut in (1, 7, 39)]
    assert not any(ids_of(ticket) == alone for ticket in company)


def test_answers_have_their_length_and_end_where_they_are_stopped(serve, finish, ids_of):
    engine = serve()
    lengths = [1, 2, 3, 50]
    tickets = [engine.submit(PROMPT, replace(WARM, max_tokens=length)) for length in lengths]
    assert [len(ids_of(ticket)) for ticket in tickets] == lengths

    text = "".join(piece.text for piece in finish(engine.submit(PROMPT, LONG)))
    stopped = engine.submit(PROMPT, replace(LONG, stop=(text[20:23],)))

    assert "".join(piece.text for piece in finish(stopped)) == text[: text.index(text[20:23])]
    assert stopped.finish.reason is FinishReason.STOP
    assert stopped.finish.usage.completion_tokens < 60


def test_who_is_cancelled_leaves_and_the_neighbours_do_not_notice(serve, ids_of):
    engine = serve(max_requests=64)
    expected = ids_of(engine.submit(PROMPT, WARM))

    leaving = [engine.submit(PROMPT, replace(LONG, seed=seed)) for seed in range(30)]
    staying = [engine.submit(PROMPT, WARM) for _ in range(3)]
    for ticket in leaving:
        ticket.cancel()

    assert [ids_of(ticket) for ticket in staying] == [expected] * 3
    assert {ticket.finish.reason for ticket in leaving} == {FinishReason.CANCELLED}
    assert engine.active == 0


def test_who_is_cancelled_while_a_step_fills_a_block_of_theirs_does_no_harm(serve, finish, ids_of):
    engine = serve()
    expected = ids_of(engine.submit(PROMPT, WARM))
    scheduler = engine._manager.batch_processor.scheduler
    schedule, leaving = scheduler.schedule_batch, []

    def schedule_batch(*budgets):
        batch, *rest = schedule(*budgets)
        while leaving and any(row.complete_blocks for row in batch or ()):
            leaving.pop().cancel()
        return batch, *rest

    scheduler.schedule_batch = schedule_batch
    one = engine.submit(PROMPT, LONG, owner="ada")
    leaving.append(one)
    staying = engine.submit(PROMPT, WARM, owner="ada")

    assert ids_of(staying) == expected
    finish(one)
    assert one.finish.reason is FinishReason.CANCELLED
    assert engine.restarts == 0


def test_more_than_the_cache_holds_is_put_back_and_computed_again(serve, ids_of, monkeypatch):
    roomy = serve()
    choice = Sampling(max_tokens=60, temperature=1.0, seed=5)
    expected = [ids_of(roomy.submit(prompt, choice)) for prompt in prompts(8)]
    put_back, evict = [], OffloadingManager.offload_requests

    def counted(manager):
        put_back.append(manager)
        evict(manager)

    monkeypatch.setattr(OffloadingManager, "offload_requests", counted)
    engine = serve(cache_tokens=160)

    tickets = [engine.submit(prompt, choice) for prompt in prompts(8)]

    assert [ids_of(ticket) for ticket in tickets] == expected
    assert put_back


def test_a_shared_beginning_changes_nothing(serve, ids_of):
    plain = serve(share_prefixes=False)
    engine = serve()
    prompt = prompts(20)[-1]

    for owner in ("one", "one", "two"):
        ticket = engine.submit([*prompt, 9, 8], ASKED, owner=owner)
        assert ids_of(ticket) == ids_of(plain.submit([*prompt, 9, 8], ASKED))


def test_a_stop_ends_what_is_under_way(serve, ids_of):
    engine = serve()
    ticket = engine.submit(PROMPT, LONG)

    engine.stop()

    assert len(ids_of(ticket)) <= 400
    assert ticket.finish.reason is FinishReason.ERROR
    with pytest.raises(NotReady):
        engine.submit(PROMPT, ASKED)
