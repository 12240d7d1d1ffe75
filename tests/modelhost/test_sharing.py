"""Blocks shared within one owner: the same answers sooner, and nothing to learn about others."""

from __future__ import annotations

import threading

import pytest

from modelhost.engine import Engine
from modelhost.sharing import OwnedBlocks
from modelhost.types import FinishReason, Sampling
from tests.modelhost.test_engine_death import Bomb

FIRST = [1, *(10 + 7 * step % 200 for step in range(150))]
GREEDY = Sampling(max_tokens=24)
SAMPLED = Sampling(max_tokens=24, temperature=1.1, seed=5)
PAGE = 16


def blocks(engine: Engine) -> OwnedBlocks:
    return engine._manager.batch_processor.scheduler.blocks


@pytest.fixture
def ask(ids_of):
    """Ids of one answer, and how many tokens of its prompt did not have to be computed."""

    def submit(engine, prompt, choice=GREEDY, **options):
        before = blocks(engine).reused
        ids = ids_of(engine.submit(prompt, choice, **options))
        return ids, blocks(engine).reused - before

    return submit


def test_a_second_turn_computes_only_what_is_new(serve, ask):
    engine = serve()
    answer, reused = ask(engine, FIRST, owner="ada")
    assert reused == 0

    _, reused = ask(engine, [*FIRST, *answer, 17, 18, 19], owner="ada")

    said = len(FIRST) + len(answer) - 1  # the last token was never put into the cache
    assert reused == said // PAGE * PAGE


def test_the_answers_are_those_without_sharing(serve, ask):
    shared, plain = serve(), serve(share_prefixes=False)
    prompt = FIRST

    for turn in range(4):
        choice = (GREEDY, SAMPLED)[turn % 2]
        answer, _ = ask(shared, prompt, choice, owner="ada")
        assert (answer, 0) == ask(plain, prompt, choice, owner="ada")
        prompt = [*prompt, *answer, 17 + turn]
    assert blocks(shared).reused > 3 * 100


@pytest.mark.parametrize("other", ["bob", "ada2", "", "ADA"])
def test_another_owner_finds_nothing(serve, ask, other):
    engine = serve()
    mine, _ = ask(engine, FIRST, owner="ada")

    theirs, reused = ask(engine, FIRST, owner=other)

    assert (theirs, reused) == (mine, 0)
    assert ask(engine, FIRST, owner="ada")[1] > 100


def test_who_has_no_owner_shares_not_even_with_itself(serve, ask):
    engine = serve()
    ask(engine, FIRST)

    assert ask(engine, FIRST)[1] == 0


def test_a_prompt_shorter_than_a_block_shares_nothing_and_is_answered(serve, ask):
    engine = serve()

    assert ask(engine, [5, 6], owner="ada") == ask(engine, [5, 6], owner="ada")


def test_equal_prompts_at_once_answer_alike_whoever_owns_them(serve, ids_of):
    engine = serve()
    alone = ids_of(engine.submit(FIRST, SAMPLED))

    owners = ["ada", "bob", "eve", ""] * 5
    tickets = [engine.submit(FIRST, SAMPLED, owner=owner) for owner in owners]

    assert [ids_of(ticket) for ticket in tickets] == [alone] * 20


def test_cached_blocks_never_keep_a_live_request_out(serve, ids_of):
    engine = serve(cache_tokens=512)
    for turn in range(12):  # together five times what fits
        prompt = [3 + turn, *FIRST]
        assert len(ids_of(engine.submit(prompt, GREEDY, owner=f"owner {turn}"))) == 24
    assert engine.restarts == 0


def test_a_cancel_leaves_the_blocks_to_its_owner_only(serve, ask):
    engine = serve()
    long = Sampling(max_tokens=300)
    ticket = engine.submit(FIRST, long, owner="ada")
    begun = threading.Event()
    while not ticket.delivered and not begun.wait(0.005):
        pass
    ticket.cancel()
    assert ticket.finish is not None
    assert ticket.finish.reason is FinishReason.CANCELLED

    ids, reused = ask(engine, FIRST, owner="bob")
    assert (len(ids), reused) == (24, 0)
    assert ask(engine, FIRST, owner="ada")[0] == ids


def test_after_a_death_the_new_thread_shares_again(serve, load_tiny, ask):
    loaded = load_tiny()
    engine, bomb = serve(loaded), Bomb(loaded.model)
    expected, _ = ask(engine, FIRST, owner="ada")
    bomb.arm(3)

    assert ask(engine, FIRST, owner="ada")[0] == expected, "its cache died under it"

    assert engine.restarts == 1
    assert ask(engine, FIRST, owner="ada") == (expected, 144)
