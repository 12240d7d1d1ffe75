"""Drafts: the same answers in fewer steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers.generation.continuous_batching.requests import (
    FutureRequestState,
    RequestState,
    RequestStatus,
)

from modelhost.checkpoints import Loaded
from modelhost.engine import Engine
from modelhost.speculation import ROWS, Draft, Speculator
from modelhost.types import FinishReason, Sampling
from tests.modelhost.test_attention import MODELS
from tests.modelhost.test_engine_death import Bomb

QUOTED = [1, *(10 + 7 * step % 50 for step in range(120))]
GREEDY = Sampling(max_tokens=60)
SAMPLED = Sampling(max_tokens=60, temperature=0.05, seed=5)
TRUNCATED = Sampling(max_tokens=60, temperature=0.2, top_k=5, top_p=0.8, seed=6)


def speculator(engine: Engine) -> Speculator:
    return engine._manager.batch_processor.scheduler.speculator


@pytest.fixture
def load_parrot(load_tiny) -> Callable[[], Loaded]:
    """A network that looks little beyond its last token, and so comes back to what it said."""

    def load() -> Loaded:
        loaded = load_tiny()
        with torch.no_grad():
            for layer in loaded.model.model.layers:
                layer.self_attn.o_proj.weight.mul_(0.02)
        return loaded

    return load


@pytest.fixture
def start(serve, load_parrot) -> Callable[..., Engine]:
    """An engine around it."""
    return lambda **options: serve(load_parrot(), **options)


@pytest.fixture
def plain(start) -> Engine:
    """One that drafts nothing."""
    return start(speculate=False)


@pytest.fixture
def drafting(start) -> Engine:
    return start()


@pytest.mark.parametrize("choice", [GREEDY, SAMPLED, TRUNCATED], ids=["greedy", "sampled", "cut"])
def test_an_answer_is_the_same_in_fewer_steps(drafting, plain, ids_of, choice):
    for begin in range(6):
        prompt = QUOTED[begin * 3 :]
        assert ids_of(drafting.submit(prompt, choice)) == ids_of(plain.submit(prompt, choice))

    assert speculator(plain) is None
    saved = plain._manager.current_batch - drafting._manager.current_batch
    assert saved >= speculator(drafting).accepted > 0


@pytest.mark.parametrize("streams", [2, 3, ROWS, 20])
def test_streams_together_say_what_they_say_alone(drafting, plain, ids_of, streams):
    choices = [(GREEDY, SAMPLED, TRUNCATED)[at % 3] for at in range(streams)]
    alone = [ids_of(plain.submit(QUOTED[at:], choice)) for at, choice in enumerate(choices)]

    tickets = [drafting.submit(QUOTED[at:], choice) for at, choice in enumerate(choices)]

    assert [ids_of(ticket) for ticket in tickets] == alone


def test_an_answer_has_as_many_tokens_as_it_may_have(drafting, ids_of):
    whole = ids_of(drafting.submit(QUOTED, GREEDY))
    for most in range(1, len(whole)):
        ticket = drafting.submit(QUOTED, Sampling(max_tokens=most))

        assert ids_of(ticket) == whole[:most]
        assert ticket.finish.reason is FinishReason.LENGTH
        assert ticket.finish.usage.completion_tokens == most


def test_a_stop_text_cuts_where_it_would_without_drafts(drafting, plain, finish):
    whole = "".join(piece.text for piece in finish(plain.submit(QUOTED, GREEDY)))
    for at in range(20, len(whole) - 5, 7):
        choice = Sampling(max_tokens=60, stop=(whole[at : at + 4],))
        seen = []
        for asked in (plain, drafting):
            ticket = asked.submit(QUOTED, choice)
            pieces = finish(ticket)
            ids = [one for piece in pieces for one in piece.token_ids]
            seen.append(("".join(piece.text for piece in pieces), ids, ticket.finish))
        assert seen[0] == seen[1]
    assert speculator(drafting).accepted > 0


@pytest.mark.parametrize("last", range(24, 44, 3))
def test_what_is_drafted_behind_the_end_is_no_answer(load_parrot, serve, plain, ids_of, last):
    """The token at which the answer ends is one that the refrain has."""
    whole = ids_of(plain.submit(QUOTED, GREEDY))
    loaded = load_parrot()
    loaded.format.stop_ids = frozenset({whole[last]})
    engine = serve(loaded)

    ticket = engine.submit(QUOTED, GREEDY, owner="ada")

    assert ids_of(ticket) == whole[: whole.index(whole[last]) + 1]
    assert ticket.finish.reason is FinishReason.STOP


def test_blocks_that_drafts_completed_are_right_for_the_next_turn(drafting, plain, ids_of):
    prompt = QUOTED
    for turn in range(4):
        answer = ids_of(drafting.submit(prompt, GREEDY, owner="ada"))
        assert answer == ids_of(plain.submit(prompt, GREEDY))
        prompt = [*prompt, *answer, 17 + turn]

    assert speculator(drafting).accepted > 0
    said = len(prompt) - len(answer) - 1 + len(answer) - 1
    reused = drafting._manager.batch_processor.scheduler.blocks.reused
    assert reused > said - 60, "of the last turn alone"


def test_in_a_cache_without_room_nobody_waits_for_drafts(start, plain, ids_of):
    engine = start(cache_tokens=256)
    choice = Sampling(max_tokens=240 - len(QUOTED), temperature=0.05, seed=3)

    assert ids_of(engine.submit(QUOTED, choice)) == ids_of(plain.submit(QUOTED, choice))
    tickets = [engine.submit(QUOTED, choice) for _ in range(3)]
    expected = ids_of(plain.submit(QUOTED, choice))
    assert [ids_of(ticket) for ticket in tickets] == [expected] * 3
    assert engine.restarts == 0


def test_after_a_death_it_drafts_again(serve, load_parrot, plain, ids_of):
    loaded = load_parrot()
    engine, bomb = serve(loaded), Bomb(loaded.model)
    expected = ids_of(plain.submit(QUOTED, GREEDY))
    bomb.arm(12)

    assert ids_of(engine.submit(QUOTED, GREEDY)) == expected

    assert engine.restarts == 1
    before = speculator(engine).accepted
    assert ids_of(engine.submit(QUOTED, GREEDY)) == expected
    assert speculator(engine).accepted > before


def test_a_prompt_of_one_more_token_is_answered_with_drafts(drafting, plain, ids_of):
    """The rest of its prompt looks like a decoding step: 144 of 145 tokens are its owner's."""
    prompt = [*QUOTED, *QUOTED[1:25]]
    expected = ids_of(plain.submit(prompt, GREEDY))
    for _ in range(3):
        assert ids_of(drafting.submit(prompt, GREEDY, owner="ada")) == expected
    assert drafting._manager.batch_processor.scheduler.blocks.reused == 2 * 144


def test_nothing_is_drafted_beyond_the_last_token(drafting, ids_of):
    whole = ids_of(drafting.submit(QUOTED, GREEDY, owner="ada"))
    drafted = speculator(drafting).drafted

    assert ids_of(drafting.submit(QUOTED, Sampling(max_tokens=2), owner="ada")) == whole[:2]

    assert speculator(drafting).drafted == drafted, "the second token is the request's own row's"


@pytest.fixture
def decoding() -> RequestState:
    """A request behind three tokens, the last of them just chosen."""
    state = RequestState("a", [1, 2], max_new_tokens=9, eos_token_id=0, position_offset=2)
    state.status = RequestStatus.DECODING
    state.update_and_check_completion(7, None)
    return state


def drafts_of(state: RequestState, *tokens: int) -> list[Draft]:
    drafts = [Draft(state, token, 2 + at) for at, token in enumerate(tokens)]
    for draft in drafts:
        draft.complete_blocks["full_attention"] = 1
    return drafts


def test_drafts_stand_as_far_as_they_are_right(decoding):
    right, second, wrong = drafts_of(decoding, 7, 8, 9)

    assert not right.update_and_check_completion(8, None)
    assert not second.update_and_check_completion(5, None)
    assert not wrong.update_and_check_completion(6, None)

    assert [one.accepted for one in (right, second, wrong)] == [True, True, False]
    assert [one.streaming for one in (right, second, wrong)] == [True, True, False]
    assert decoding.generated_tokens == [7, 8, 5]
    assert decoding.position_offset == 4
    assert (right.complete_blocks, wrong.complete_blocks) == ({"full_attention": 1}, {})


def test_a_draft_behind_a_wrong_one_is_wrong_even_if_its_token_was_chosen(decoding):
    for draft in drafts_of(decoding, 3, 7):
        assert not draft.update_and_check_completion(4, None)
        assert not draft.accepted

    assert decoding.generated_tokens == [7]
    assert decoding.position_offset == 2


def test_a_draft_behind_the_end_stays_away_from_the_freed_blocks(decoding):
    first, second = drafts_of(decoding, 7, 0)

    assert first.update_and_check_completion(0, None), "that was the end"
    assert not second.update_and_check_completion(4, None)

    assert decoding.generated_tokens == [7, 0]
    assert second.complete_blocks == {}


def test_a_prompt_that_is_still_being_read_gets_no_drafts(drafting):
    reading = RequestState("a", [1, 2, 3], tokens_to_process=[1], remaining_prefill_tokens=[2, 3])
    row = FutureRequestState(reading, has_new_token=False, complete_blocks={}, query_length=1)

    assert speculator(drafting).extend([row], reads=0) == []


def test_a_model_with_a_window_drafts_nothing(serve, tiny_format):
    """Its layers overwrite old keys at once."""
    assert speculator(serve(Loaded(MODELS["two kinds of layers"](), tiny_format))) is None


def test_an_owners_next_answer_takes_from_the_last(drafting, plain, ids_of):
    """Nothing in the second prompt says how its answer goes on; the first answer did."""
    expected = ids_of(plain.submit(QUOTED, GREEDY))
    told = {}
    for owner in ("ada", "ada", "bob", ""):
        before = drafting._manager.current_batch
        ticket = drafting.submit(QUOTED, GREEDY, owner=owner)
        assert ids_of(ticket) == expected
        told.setdefault(owner, []).append(drafting._manager.current_batch - before)

    first, second = told["ada"]
    assert second < first / 2
    assert told["bob"] == told[""] == [first], "others' answers are no help"
