"""The engine: right answers in company, nothing that one request does harms another."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from modelhost.checkpoints import Loaded, Placement, locate
from modelhost.errors import BadSampling, BadTurns, Busy, NotReady, PromptTooLong
from modelhost.progress import Progress
from modelhost.text import ResponseDecoder
from modelhost.types import FinishReason, ModelSpec, Sampling, Turn, Usage
from tests.modelhost.conftest import CPU

PROMPT = [1, 87, 85, 71, 84, 201]
WARM = Sampling(max_tokens=40, temperature=1.2, top_p=0.95, seed=77)


def prompts(count):
    """Different prompts of different lengths."""
    return [[1, *(10 + (7 * at + step) % 200 for step in range(3 + 5 * at))] for at in range(count)]


def generate(model, prompt, max_tokens, stop_ids=()):
    """What transformers' own loop answers, alone, with greedy sampling."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=sorted(stop_ids) or None,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


# Right answers


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


# What is refused harms nobody

NAN = float("nan")
ASKED = Sampling(max_tokens=8)


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


# Full contexts and full caches


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


# Stop texts and cancels


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


def test_trouble_in_one_requests_decoder_is_its_own(load_tiny, serve, ids_of):
    loaded = load_tiny()
    answer = generate(loaded.model, PROMPT, 8)
    broken = generate(loaded.model, prompts(3)[2], 8)
    poison = next(one for one in broken if one not in answer)

    def decode(token_ids):
        if poison in token_ids:
            raise KeyError(poison)
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
    assert bad.finish.error == "KeyError in the decoder."
    assert engine.active == 0


# Places in the line, and the end


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
