"""Fitting the context: whole exchanges go, the oldest first, and no more than needed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhost import prompts
from modelhost.errors import BadSampling, BadTurns, PromptTooLong
from modelhost.types import Turn


class OneTokenPerCharacter:
    """A chat format whose sizes can be counted by hand: a token for each turn and character."""

    stop_ids = frozenset()

    def encode(self, turns, tools=()):
        return [7 for turn in turns for _ in f"{turn.content}."]

    def decode(self, token_ids):
        return "?" * len(token_ids)


def conversation(*sizes, system=0):
    turns = [Turn("system", "s" * system)] if system else []
    for size in sizes:
        turns += [Turn("user", "u" * size), Turn("assistant", "a" * size)]
    return [*turns, Turn("user", "last")]


def test_what_fits_is_left_whole():
    rendered = prompts.fit(OneTokenPerCharacter(), conversation(3, 3), room=21)

    assert len(rendered.token_ids) == 21
    assert rendered.omitted == []


def test_the_oldest_exchange_goes_first_and_no_more_than_needed():
    rendered = prompts.fit(OneTokenPerCharacter(), conversation(3, 3), room=20)

    assert rendered.omitted == [0, 1]
    assert len(rendered.token_ids) == 13


def test_system_turns_stay_wherever_they_stand():
    turns = [*conversation(9, system=2)[:-1], Turn("system", "late"), Turn("user", "last")]

    rendered = prompts.fit(OneTokenPerCharacter(), turns, room=15)

    assert rendered.omitted == [1, 2]


def test_an_answer_without_its_question_counts_as_the_oldest_exchange():
    turns = [Turn("assistant", "Welcome!"), *conversation(2)]

    assert prompts.fit(OneTokenPerCharacter(), turns, room=12).omitted == [0]


def test_a_last_exchange_that_does_not_fit_alone_is_too_long():
    with pytest.raises(PromptTooLong, match="5 tokens without its history, and 4 fit"):
        prompts.fit(OneTokenPerCharacter(), conversation(3, 3), room=4)


def test_a_system_turn_that_fills_the_context_is_too_long():
    with pytest.raises(PromptTooLong):
        prompts.fit(OneTokenPerCharacter(), conversation(1, system=30), room=30)


def test_no_turns_are_a_refusal():
    with pytest.raises(BadTurns):
        prompts.fit(OneTokenPerCharacter(), [], room=10)


ANY_TURNS = st.lists(
    st.builds(
        Turn, st.sampled_from(["system", "user", "assistant"]), st.integers(0, 6).map("x".__mul__)
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=300)
@given(ANY_TURNS, st.integers(1, 60), st.sampled_from([1, 2, prompts.FIRST_LOOK]))
def test_as_few_whole_exchanges_as_possible_are_left_out(turns, room, look):
    def size(omitted):
        return sum(len(turn.content) + 1 for at, turn in enumerate(turns) if at not in omitted)

    exchanges = []
    for at, turn in enumerate(turns):
        if turn.role == "user" or (turn.role == "assistant" and not exchanges):
            exchanges.append([])
        if turn.role != "system":
            exchanges[-1].append(at)
    choices = [
        [one for exchange in exchanges[:count] for one in exchange]
        for count in range(max(1, len(exchanges)))
    ]
    fitting = [omitted for omitted in choices if size(omitted) <= room]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompts, "FIRST_LOOK", look)
        if fitting:
            rendered = prompts.fit(OneTokenPerCharacter(), turns, room=room)
            assert rendered.omitted == fitting[0]
            assert len(rendered.token_ids) == size(fitting[0])
        else:
            with pytest.raises(PromptTooLong):
                prompts.fit(OneTokenPerCharacter(), turns, room=room)


def test_what_a_prompt_costs_does_not_grow_with_a_conversation_that_is_left_out():
    seen = []

    class Counting(OneTokenPerCharacter):
        def encode(self, turns, tools=()):
            seen.append(len(turns))
            return super().encode(turns, tools)

    rendered = prompts.fit(Counting(), conversation(*[9] * 5000), room=500)

    assert len(rendered.omitted) == 2 * 5000 - 2 * ((500 - 5) // 20)
    assert sum(seen) < 500


def test_room_is_kept_for_the_answer_asked_for():
    turns = conversation(10)

    whole = prompts.render(OneTokenPerCharacter(), turns, context=100, max_tokens=73)
    less = prompts.render(OneTokenPerCharacter(), turns, context=100, max_tokens=74)

    assert (whole.omitted, less.omitted) == ([], [0, 1])


def test_without_a_number_history_makes_room_for_a_usual_answer():
    rendered = prompts.render(OneTokenPerCharacter(), conversation(40), context=100)

    assert rendered.omitted == [0, 1]  # a quarter of so small a context is for the answer


def test_without_a_number_a_long_question_may_leave_little_room_for_the_answer():
    turns = [Turn("user", "x" * 98)]

    assert len(prompts.render(OneTokenPerCharacter(), turns, context=100).token_ids) == 99
    with pytest.raises(PromptTooLong):
        prompts.render(OneTokenPerCharacter(), turns, context=99)


@pytest.mark.parametrize("max_tokens", [0, -1, 100, 10**9])
def test_an_answer_that_leaves_no_room_for_a_prompt_is_refused(max_tokens):
    with pytest.raises(BadSampling) as refusal:
        prompts.render(OneTokenPerCharacter(), conversation(), context=100, max_tokens=max_tokens)

    assert refusal.value.field == "max_tokens"
