"""The engine: the right answers, alone and in company, and after a cut."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from modelhost.checkpoints import Placement, locate
from modelhost.progress import Progress
from modelhost.text import ResponseDecoder
from modelhost.types import FinishReason, ModelSpec, Sampling, Turn, Usage
from tests.modelhost.conftest import CPU
from tests.modelhost.questions import PROMPT, WARM, generate, prompts


def test_twenty_answers_at_once_are_what_generate_gives_alone(load_tiny, serve, ids_of):
    alone = load_tiny()
    engine = serve()

    tickets = [engine.submit(prompt, Sampling(max_tokens=40)) for prompt in prompts(20)]

    assert [ids_of(ticket) for ticket in tickets] == [
        generate(alone.model, prompt, 40, alone.format.stop_ids) for prompt in prompts(20)
    ]


@pytest.mark.model
def test_twenty_answers_of_the_demo_model_are_what_generate_gives_alone(demo_engine, ids_of):
    alone = locate(ModelSpec(), Progress()).load(Placement(CPU, torch.float32), Progress())
    questions = [
        "What is the capital of France?", "Count to five.", "Name three colours.", "你好",
        "Write a haiku about rain.", "Who wrote Hamlet?", "Translate 'cat' into French.",
        "What is 2 + 2?", "Why is the sky blue?", "Say hello in Spanish.", "Define entropy.",
        "List prime numbers.", "How do I boil an egg?", "What is Python?", "Tell me a joke.",
        "Where is Tokyo?", "Explain gravity.", "What do bees eat?", "Give me a title.", "Goodbye!",
    ]  # fmt: skip
    rendered = [demo_engine.render([Turn("user", text)]).token_ids for text in questions]

    tickets = [demo_engine.submit(prompt, Sampling(max_tokens=5)) for prompt in rendered]

    assert [ids_of(ticket) for ticket in tickets] == [
        generate(alone.model, prompt, 5, alone.format.stop_ids) for prompt in rendered
    ]


@pytest.mark.model
def test_the_demo_model_knows_the_capital_of_france(demo_engine, finish):
    rendered = demo_engine.render([Turn("user", "What is the capital of France?")], max_tokens=30)

    ticket = demo_engine.submit(rendered.token_ids, Sampling(max_tokens=30))

    text = "".join(piece.text for piece in finish(ticket))
    assert text == "The capital of France is Paris."
    assert ticket.finish.reason is FinishReason.STOP
    assert ticket.finish.usage == Usage(len(rendered.token_ids), 8)


@pytest.mark.model
def test_a_seed_of_the_demo_model_gives_one_answer_alone_in_company_and_continued(
    demo_engine, ids_of
):
    rendered = demo_engine.render([Turn("user", "Tell me a story.")], max_tokens=14).token_ids
    choice = Sampling(max_tokens=14, temperature=0.9, top_p=0.95, seed=2024)
    alone = ids_of(demo_engine.submit(rendered, choice))

    company = [demo_engine.submit(rendered, replace(choice, seed=seed)) for seed in range(12)]
    again = demo_engine.submit(rendered, choice)
    rest = demo_engine.submit(rendered, choice, resume=alone[:9])

    assert ids_of(again) == alone
    assert ids_of(rest) == alone[9:]
    assert sum(ids_of(ticket) == alone for ticket in company) == 0


def test_a_seed_gives_the_same_tokens_alone_and_among_twelve_neighbours(serve, ids_of):
    engine = serve()
    alone = ids_of(engine.submit(PROMPT, WARM))

    neighbours = [engine.submit(prompt, replace(WARM, seed=5)) for prompt in prompts(6)]
    again = engine.submit(PROMPT, WARM)
    neighbours += [engine.submit(prompt, Sampling(max_tokens=30)) for prompt in prompts(6)]

    assert ids_of(again) == alone
    assert all(ids_of(ticket) for ticket in neighbours)


def test_different_seeds_give_different_answers(serve, ids_of):
    engine = serve()

    tickets = [engine.submit(PROMPT, replace(WARM, seed=seed)) for seed in range(20)]

    assert len({tuple(ids_of(ticket)) for ticket in tickets}) == 20


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_a_run_cut_anywhere_and_continued_gives_exactly_the_rest(serve, finish, temperature):
    engine = serve()
    choice = replace(WARM, temperature=temperature)
    long_prompt = prompts(60)[-1]  # more than one step reads
    assert len(long_prompt) > 256
    for prompt in (PROMPT, long_prompt):
        whole = finish(engine.submit(prompt, choice))
        ids = [one for piece in whole for one in piece.token_ids]
        text = "".join(piece.text for piece in whole)
        cuts = (0, 1, 2, 15, 16, 17, 39, 40)

        tickets = [engine.submit(prompt, choice, resume=ids[:cut]) for cut in cuts]

        for cut, ticket in zip(cuts, tickets, strict=True):
            rest = finish(ticket)
            before = ResponseDecoder(engine.decode)
            shown = "".join(before.feed([one]) for one in ids[:cut])
            assert [one for piece in rest for one in piece.token_ids] == ids[cut:]
            assert shown + "".join(piece.text for piece in rest) == text
            assert ticket.finish.usage == Usage(len(prompt), 40)


def test_a_continued_answer_that_had_ended_ends_at_once(serve, ids_of):
    engine = serve()
    (stop_id,) = engine._format.stop_ids

    ended = engine.submit(PROMPT, WARM, resume=[30, stop_id])
    full = engine.submit(PROMPT, WARM, resume=[30] * 40)
    stopped = engine.submit(PROMPT, replace(WARM, stop=("<",)), resume=[30, 31])

    assert [ids_of(ticket) for ticket in (ended, full, stopped)] == [[], [], []]
    assert ended.finish.reason is FinishReason.STOP
    assert full.finish.reason is FinishReason.LENGTH
    assert stopped.finish.reason is FinishReason.STOP
    assert engine.active == 0


def test_a_model_without_a_stop_token_answers_to_the_length_asked_for(load_tiny, serve, ids_of):
    loaded = load_tiny()
    loaded.format.stop_ids = frozenset()
    engine = serve(loaded)

    ticket = engine.submit(PROMPT, Sampling(max_tokens=9))

    assert len(ids_of(ticket)) == 9
    assert ticket.finish.reason is FinishReason.LENGTH


def test_a_stop_token_ends_the_answer_and_is_not_shown(load_tiny, serve, finish):
    loaded = load_tiny()
    answer = generate(loaded.model, PROMPT, 10)
    loaded.format.stop_ids = frozenset({answer[4]})
    assert answer.index(answer[4]) == 4

    ticket = serve(loaded).submit(PROMPT, Sampling(max_tokens=10))

    pieces = finish(ticket)
    assert [one for piece in pieces for one in piece.token_ids] == answer[:5]
    shown = ResponseDecoder(loaded.format.decode)
    assert "".join(piece.text for piece in pieces) == shown.feed(answer[:4]) + shown.flush()
    assert ticket.finish.reason is FinishReason.STOP


def test_what_arrives_together_begins_together(serve, ids_of):
    """Before the first step after a pause it may wait; while it computes it does not."""
    engine = serve()
    arrived, asked = threading.Event(), []

    def gather() -> None:
        asked.append(len(engine._manager.batch_processor.scheduler.active_requests))
        assert arrived.wait(10)

    alone = [ids_of(engine.submit(prompt, Sampling(max_tokens=8))) for prompt in prompts(5)]
    engine.gather = gather
    tickets = [engine.submit(prompt, Sampling(max_tokens=8)) for prompt in prompts(5)]
    steps = engine._manager.current_batch
    arrived.set()

    assert [ids_of(ticket) for ticket in tickets] == alone
    assert engine._manager.current_batch - steps <= 8 + 2  # of their own they need eight each
    assert set(asked) == {0}
