"""From turns to a prompt that fits: which turns the model sees, and which it does not."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

from modelhost.errors import BadSampling, BadTurns, PromptTooLong
from modelhost.text import AnswerFilter
from modelhost.types import Rendered, Role, Tool, Turn

DEFAULT_ANSWER = 512  # tokens of an answer when a request names no number
FIRST_LOOK = 16  # exchanges that are tried first; most conversations are not longer


class ChatFormat(Protocol):
    """How one family of models writes a conversation.

    stop_ids: the ids that end the model's turn.
    """

    stop_ids: frozenset[int]

    def encode(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> list[int]:
        """Token ids of the conversation, opened for the assistant's answer. Raises BadTurns."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids, control tokens left out."""

    def answer(self, tools: Sequence[Tool] = ()) -> AnswerFilter | None:
        """A fresh filter for one answer, where the format has something to hide or to read."""


def render(
    chat_format: ChatFormat,
    turns: Sequence[Turn],
    *,
    context: int,
    max_tokens: int | None = None,
    tools: Sequence[Tool] = (),
) -> Rendered:
    """A prompt that leaves room for the answer in a context of so many tokens.

    Without `max_tokens` history is left out to make room for an answer of the usual length; where
    even that is too little, a shorter answer must do. Raises BadTurns, PromptTooLong, BadSampling
    (max_tokens beyond the context).
    """
    if max_tokens is not None:
        if not 1 <= max_tokens < context:
            raise BadSampling("max_tokens", f"max_tokens must be from 1 to {context - 1}.")
        return fit(chat_format, turns, room=context - max_tokens, tools=tools)
    try:
        room = context - min(DEFAULT_ANSWER, context // 4)
        return fit(chat_format, turns, room=room, tools=tools)
    except PromptTooLong:
        return fit(chat_format, turns, room=context - 1, tools=tools)


def fit(
    chat_format: ChatFormat, turns: Sequence[Turn], *, room: int, tools: Sequence[Tool] = ()
) -> Rendered:
    """Encode the turns, leaving out whole oldest exchanges until they fit `room` tokens.

    An exchange is a user turn and what follows it up to the next; system turns and
    the last exchange are always kept. Raises PromptTooLong when those alone do not
    fit, BadTurns when there is nothing to answer.
    """
    if not turns:
        raise BadTurns("There are no turns to answer.")
    exchanges = _exchanges(turns)

    def omitted(count: int) -> list[int]:
        return [index for exchange in exchanges[: len(exchanges) - count] for index in exchange]

    @cache
    def newest(count: int) -> list[int]:
        gone = set(omitted(count))
        kept = [turn for index, turn in enumerate(turns) if index not in gone]
        return chat_format.encode(kept, tools)

    count = _most(len(exchanges), lambda count: len(newest(count)) <= room)
    if count is None:
        shortest = len(newest(min(1, len(exchanges))))
        raise PromptTooLong(
            f"The prompt has {shortest} tokens without its history, and {room} fit."
        )
    return Rendered(newest(count), omitted(count))


def _most(available: int, fits: Callable[[int], bool]) -> int | None:
    """The largest number that fits; None when not even one does.

    A long conversation is not encoded whole to find out: the part that is tried is doubled until
    it does not fit any more.
    """
    least, look = min(1, available), min(FIRST_LOOK, available)
    while look < available and fits(look):
        least, look = look, min(2 * look, available)
    if look == available and fits(look):
        return look
    some = range(least, look)
    fitting = bisect.bisect_left(some, True, key=lambda count: not fits(count))
    return some[fitting - 1] if fitting else None


def _exchanges(turns: Sequence[Turn]) -> list[list[int]]:
    """Indices of the turns that are not system turns, grouped from user turn to user turn."""
    groups: list[list[int]] = []
    for index, turn in enumerate(turns):
        if turn.role == Role.SYSTEM:
            continue
        if turn.role == Role.USER or not groups:
            groups.append([])
        groups[-1].append(index)
    return groups
