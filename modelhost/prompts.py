"""From turns to token ids, such that no text can forge a control token.

Template text and content are tokenized apart: only the template may produce
control tokens, so `<|im_start|>` or `<|user|>` typed by a user stays text.
"""

from __future__ import annotations

import bisect
import copy
import re
import secrets
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Protocol

from modelhost.errors import BadSampling, BadTurns, PromptTooLong, first_line
from modelhost.text import Opening
from modelhost.types import Rendered, Role, Turn

DEFAULT_ANSWER = 512  # tokens of an answer when a request names no number
HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")  # JSON can spell it, UTF-8 cannot


class ChatFormat(Protocol):
    """How one family of models writes a conversation.

    stop_ids: the ids that end the model's turn.
    """

    stop_ids: frozenset[int]

    def encode(self, turns: Sequence[Turn]) -> list[int]:
        """Token ids of the conversation, opened for the assistant's answer. Raises BadTurns."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids, control tokens left out."""

    def opening(self) -> Opening | None:
        """A fresh filter for what the model says before each answer, if it says anything."""


class TemplateFormat:
    """A tokenizer with a Jinja chat template, as the hub's chat models have."""

    def __init__(self, tokenizer: Any, *, stop_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        # Whether special tokens are split is a setting of the tokenizer, not of the call: with
        # one for both, a thread that tokenizes a template turns it on for another's content.
        self._plain_tokenizer = copy.deepcopy(tokenizer)
        self._plain_ids("a")  # from here on, before there are threads, neither is set again
        self._template_ids("a")
        self.stop_ids = stop_ids
        control = {
            token_id: str(token)
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if token.special or _may_control(str(token))
        }
        self._control_ids = frozenset(control)
        self._spellings = _any_of(control.values())

    def encode(self, turns: Sequence[Turn]) -> list[int]:
        """Render the template around markers, then put each content's own ids in their place."""
        _check(turns)
        nonce = secrets.token_hex(16)  # nobody can write a marker that is not ours
        text = self._templated(turns, [f"SLOT{nonce}N{at}E" for at in range(len(turns))])
        token_ids: list[int] = []
        position = 0
        placed = set()
        for match in re.finditer(rf"SLOT{nonce}N(\d+)E", text):
            token_ids += self._template_ids(text[position : match.start()])
            token_ids += self.content_ids(turns[int(match[1])].content)
            position = match.end()
            placed.add(int(match[1]))
        if len(placed) < len(turns):  # better refused than answered without what was said
            raise BadTurns("The model's chat template has no place for some of these turns.")
        return token_ids + self._template_ids(text[position:])

    def decode(self, token_ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def opening(self) -> None:
        """Templates open the answer themselves; the model begins with its text."""
        return

    def content_ids(self, text: str) -> list[int]:
        """Ids of text that a client sent: never a control id, whatever the text spells."""
        token_ids = self._plain_ids(text)
        if self._control_ids.isdisjoint(token_ids):
            return token_ids
        # Added tokens that are not marked special are matched all the same. Cut after its
        # first character no spelling is whole; what a normalizer makes of the rest is dropped.
        apart = self._plain_ids_apart(text)
        return [token_id for token_id in apart if token_id not in self._control_ids]

    def _plain_ids_apart(self, text: str) -> list[int]:
        cuts = [match.start() + 1 for match in self._spellings.finditer(text)]
        parts = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
        return [token_id for part in parts for token_id in self._plain_ids(part)]

    def _templated(self, turns: Sequence[Turn], contents: Sequence[str]) -> str:
        messages = [
            {"role": str(turn.role), "content": content}
            for turn, content in zip(turns, contents, strict=True)
        ]
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is a program: it can raise anything
            reason = first_line(error)
            raise BadTurns(f"The model's chat template refuses these turns: {reason}.") from error
        return text

    def _plain_ids(self, text: str) -> list[int]:
        if not text:
            return []
        ids: list[int] = self._plain_tokenizer(
            text, add_special_tokens=False, split_special_tokens=True
        )["input_ids"]
        return ids

    def _template_ids(self, text: str) -> list[int]:
        if not text:
            return []
        ids: list[int] = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=False
        )["input_ids"]
        return ids


def _check(turns: Sequence[Turn]) -> None:
    """What a template would write as it stands, or a tokenizer could not take."""
    for turn in turns:
        if turn.role not in set(Role):
            raise BadTurns(f"{turn.role!r} is no role of this model's chat format.")
        if turn.metadata or turn.tools:
            raise BadTurns("This model's chat format has neither metadata nor tools.")
        if HALF_CHARACTER.search(turn.content):
            raise BadTurns("A turn's content is not valid Unicode: it holds half a character.")


def _may_control(spelling: str) -> bool:
    """Some tokenizers keep runs of spaces and single characters as added tokens: plain text."""
    return len(spelling) > 1 and not spelling.isspace()


def _any_of(spellings: Iterable[str]) -> re.Pattern[str]:
    """Matches at every place where one of the spellings begins, overlapping ones included."""
    listed = "|".join(re.escape(spelling) for spelling in spellings if spelling)
    return re.compile(f"(?={listed})" if listed else r"(?!)")


def render(
    chat_format: ChatFormat,
    turns: Sequence[Turn],
    *,
    context: int,
    max_tokens: int | None = None,
) -> Rendered:
    """A prompt that leaves room for the answer in a context of so many tokens.

    Without `max_tokens` room for a usual answer is kept while history can be left out
    for it. Raises BadTurns, PromptTooLong, BadSampling (max_tokens beyond the context).
    """
    if max_tokens is not None:
        if not 1 <= max_tokens < context:
            raise BadSampling("max_tokens", f"max_tokens must be from 1 to {context - 1}.")
        return fit(chat_format, turns, room=context - max_tokens)
    try:
        return fit(chat_format, turns, room=context - min(DEFAULT_ANSWER, context // 4))
    except PromptTooLong:
        return fit(chat_format, turns, room=context - 1)


def fit(chat_format: ChatFormat, turns: Sequence[Turn], *, room: int) -> Rendered:
    """Encode the turns, leaving out whole oldest exchanges until they fit `room` tokens.

    An exchange is a user turn and what follows it up to the next; system turns and
    the last exchange are always kept. Raises PromptTooLong when those alone do not
    fit, BadTurns when there is nothing to answer.
    """
    if not turns:
        raise BadTurns("There are no turns to answer.")
    token_ids = chat_format.encode(turns)
    if len(token_ids) <= room:
        return Rendered(token_ids)
    exchanges = _exchanges(turns)

    def without(count: int) -> tuple[list[int], list[int]]:
        omitted = [index for exchange in exchanges[:count] for index in exchange]
        gone = set(omitted)
        kept = [turn for index, turn in enumerate(turns) if index not in gone]
        return chat_format.encode(kept), omitted

    counts = range(1, len(exchanges))
    at = bisect.bisect_left(counts, True, key=lambda count: len(without(count)[0]) <= room)
    if at == len(counts):
        shortest = len(without(len(exchanges) - 1)[0]) if len(exchanges) > 1 else len(token_ids)
        raise PromptTooLong(
            f"The prompt has {shortest} tokens without its history, and {room} fit."
        )
    return Rendered(*without(counts[at]))


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
