"""What an engine refuses, and what fills its context or its cache: no other request notices."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from modelhost.checkpoints import Placement, locate
from modelhost.errors import BadSampling, BadTurns, PromptTooLong
from modelhost.progress import Progress
from modelhost.types import FinishReason, ModelSpec, Sampling, Turn
from tests.modelhost.conftest import CPU
from tests.modelhost.questions import ASKED, PROMPT, WARM, generate, prompts

NAN = float("nan")


@pytest.mark.parametrize(
    ("token_ids", "choice", "resume", "refusal"),
    [
        (PROMPT, replace(ASKED, temperature=1.0, top_k=10**6), (), BadSampling),
        (PROMPT, replace(ASKED, temperature=1.0, top_k=286), (), BadSampling),
        (PROMPT, replace(ASKED, top_k=-1), (), BadSampling),
        (PROMPT, replace(ASKED, temperature=NAN), (), BadSampling),
        (PROMPT, replace(ASKED, temperature=-1.0), (), BadSampling),
        (PROMPT, replace(ASKED, temperature=float("inf")), (), BadSampling),
        (PROMPT, replace(ASKED, top_p=NAN), (), BadSampling),
        (PROMPT, replace(ASKED, top_p=0.0), (), BadSampling),
        (PROMPT, replace(ASKED, seed=1 << 64), (), BadSampling),
        (PROMPT, replace(ASKED, seed=1.5), (), BadSampling),
        (PROMPT, replace(ASKED, max_tokens=0), (), BadSampling),
        (PROMPT, replace(ASKED, max_tokens=-5), (), BadSampling),
        (PROMPT, replace(ASKED, max_tokens=10**9), (), BadSampling),
        ([*PROMPT, 285], ASKED, (), BadSampling),
        ([*PROMPT, 10**12], ASKED, (), BadSampling),
        ([*PROMPT, -1], ASKED, (), BadSampling),
        ([*PROMPT, 1.5], ASKED, (), BadSampling),
        ([*PROMPT, "1"], ASKED, (), BadSampling),
        ([*PROMPT, None], ASKED, (), BadSampling),
        (PROMPT, ASKED, (10, 49_000), BadSampling),
        (PROMPT, ASKED, (10, -1), BadSampling),
        ([], ASKED, (), PromptTooLong),
        ([10] * 10_000, ASKED, (), PromptTooLong),
        ([10] * 140, ASKED, (), PromptTooLong),
        ([10] * 60, replace(ASKED, max_tokens=100), (), PromptTooLong),
        (PROMPT, replace(ASKED, temperature=1e-45), (), None),
        (PROMPT, replace(ASKED, temperature=1.0, top_p=1e-300), (), None),
        (PROMPT, replace(ASKED, temperature=2, top_k=285, top_p=1), (), None),
        (PROMPT, replace(ASKED, stop=("\ud800",)), (), None),
    ],
)
def test_a_poisonous_request_is_refused_or_harmless(
    shared_small_engine, ids_of, token_ids, choice, resume, refusal
):
    engine = shared_small_engine
    expected = ids_of(engine.submit(PROMPT, WARM))
    neighbour = engine.submit(PROMPT, WARM)

    if refusal:
        with pytest.raises(refusal):
            engine.submit(token_ids, choice, resume=resume)
    else:
        assert ids_of(engine.submit(token_ids, choice, resume=resume))

    assert ids_of(neighbour) == expected
    assert engine.alive
    assert engine.restarts == 0
    assert engine.active == 0


@pytest.fixture(scope="module")
def shared_small_engine(tiny_folder):
    """One engine with a cache of 144 tokens for the whole table: nothing in it may harm it."""
    from modelhost.engine import Engine

    checkpoint = locate(ModelSpec(model=str(tiny_folder)), Progress())
    loaded = checkpoint.load(Placement(CPU, torch.float32), Progress())
    engine = Engine(loaded, name="tiny", revision="test", cache_tokens=144)
    engine.start()
    yield engine
    assert engine.restarts == 0
    engine.stop()


def test_almost_no_temperature_is_greedy(shared_small_engine, ids_of):
    greedy = ids_of(shared_small_engine.submit(PROMPT, ASKED))

    cold = shared_small_engine.submit(PROMPT, replace(ASKED, temperature=1e-45, seed=3))

    assert ids_of(cold) == greedy


def test_turns_that_the_model_cannot_take_are_refused_before_anything_starts(shared_small_engine):
    with pytest.raises(BadTurns):
        shared_small_engine.render([Turn("robot", "hi")])
    with pytest.raises(PromptTooLong):
        shared_small_engine.render([Turn("user", "x" * 500)])
    with pytest.raises(BadSampling):
        shared_small_engine.render([Turn("user", "x")], max_tokens=1000)


def test_the_room_for_an_answer_ends_with_the_context(shared_small_engine):
    context = shared_small_engine.card.context_length

    assert shared_small_engine.room(context - 10) == 10
    assert shared_small_engine.room(context + 10) == 1


@pytest.mark.parametrize("prompt_tokens", [1, 14, 15, 16, 17, 31, 32, 33, 111, 126, 127])
def test_an_answer_may_fill_the_context_to_the_last_token(
    shared_small_engine, load_tiny, ids_of, prompt_tokens
):
    engine = shared_small_engine
    prompt = [10 + at % 200 for at in range(prompt_tokens)]
    room = engine.card.context_length - prompt_tokens

    ticket = engine.submit(prompt, Sampling(max_tokens=room))

    assert ids_of(ticket) == generate(load_tiny().model, prompt, room)
    assert ticket.finish.reason is FinishReason.LENGTH
    assert engine.alive


def test_a_small_cache_is_the_context_and_a_large_one_is_not(shared_small_engine, serve):
    assert shared_small_engine.card.context_length == 128
    assert serve().card.context_length == 512


def test_requests_that_together_exceed_the_cache_all_get_their_answers(load_tiny, serve, ids_of):
    alone = load_tiny().model
    engine = serve(cache_tokens=128)
    greedy = Sampling(max_tokens=70)
    warm = replace(WARM, max_tokens=70)
    drawn = ids_of(engine.submit(PROMPT, warm))

    tickets = [engine.submit(prompt, greedy) for prompt in prompts(7)]
    sampled = [engine.submit(PROMPT, warm) for _ in range(5)]

    assert [ids_of(ticket) for ticket in tickets] == [
        generate(alone, prompt, 70) for prompt in prompts(7)
    ]
    assert [ids_of(ticket) for ticket in sampled] == [drawn] * 5
    assert engine.restarts == 0


def test_requests_put_back_for_want_of_cache_go_on_when_the_others_are_cancelled(
    load_tiny, serve, ids_of
):
    alone = load_tiny().model
    loaded = load_tiny()
    put_back, go_on = threading.Event(), threading.Event()

    def watch(*_):
        if engine._manager.batch_processor.scheduler.block_new_requests and not go_on.is_set():
            put_back.set()
            assert go_on.wait(10)

    loaded.model.register_forward_pre_hook(watch)
    engine = serve(loaded, cache_tokens=96)
    first, second = (engine.submit(PROMPT, Sampling(max_tokens=60)) for _ in range(2))
    assert put_back.wait(10)

    first.cancel()
    go_on.set()

    assert second.wait(10)
    assert ids_of(second) == generate(alone, PROMPT, 60)
