"""The hub's chat models: a tokenizer with a Jinja chat template.

Template text and content are tokenized apart: only the template may produce control
tokens, so `<|im_start|>` or `<|user|>` typed by a user stays text.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from modelhost import reasoning
from modelhost.deadline import deadline
from modelhost.errors import BadTools, BadTurns, first_line
from modelhost.slots import Slots
from modelhost.spellings import Spellings
from modelhost.text import AnswerFilter
from modelhost.toolcalls import TaggedAnswer
from modelhost.types import Role, Tool, Turn

ANCHOR = "\n"  # no token spans it and a word, in tokenizers that put a space before a text
GREETING = "Hi"
PATIENCE = 5.0  # seconds that a template may compute for a greeting; it takes milliseconds
MOST_AROUND = 100_000  # characters that it may write around one
HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")  # JSON can spell it, UTF-8 cannot


class TemplateFormat:
    """A tokenizer with a Jinja chat template, as the hub's chat models have."""

    def __init__(self, tokenizer: Any, *, stop_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        # Whether special tokens are split is a setting of the tokenizer, not of the call: with
        # one for both, a thread that tokenizes a template turns it on for another's content.
        self._plain_tokenizer = copy.deepcopy(tokenizer)
        self._anchor: list[int] = []
        self._plain_ids("a")  # sets the flag of each, now and never again: later there are threads
        self._template_ids("a")
        self._anchor = self._anchor_ids()
        self.stop_ids = stop_ids
        control = {
            token_id: str(token)
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if token.special or _may_control(str(token))
        }
        self._control_ids = frozenset(control)
        rules = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
        self._spellings = Spellings(control.values(), rules.normalize_str if rules else str)

    def check_template(self) -> None:
        """A template is a program of others: see it end, and write a prompt. Raises BadTurns."""
        with deadline(PATIENCE):
            text = self._templated([{"role": Role.USER.value, "content": GREETING}], [])
        if len(text) > MOST_AROUND:  # before it is tokenized, which could take hours
            raise BadTurns(
                f"The model's chat template writes {len(text)} characters for a greeting."
            )
        self.encode([Turn(Role.USER, GREETING)])

    def encode(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> list[int]:
        """Render the template around markers, then put each text's own ids in its place."""
        _check(turns)
        self._check_tools(turns, tools)
        slots = Slots()
        functions = [{"type": "function", "function": self._guarded(tool, slots)} for tool in tools]

        def templated(turns: Sequence[Turn], contents: Sequence[str]) -> str:
            pairs = zip(turns, contents, strict=True)
            return self._templated([self._message(*pair, slots) for pair in pairs], functions)

        if reasoning.END in str(self._tokenizer.chat_template):
            turns = reasoning.dropped(turns, templated)
        contents = [slots.add(turn.content) for turn in turns]
        text = templated(turns, contents)
        token_ids: list[int] = []
        placed = set()
        for between, marker in slots.split(text):
            content = slots.text(marker)
            if self._anchor and content and between.endswith(" "):
                between, content = between[:-1], f" {content}"  # one token with the word
            token_ids += self._template_ids(between, behind=bool(token_ids))
            token_ids += self.content_ids(content, behind=bool(token_ids))
            placed.add(marker)
        if not placed.issuperset(content for content in contents if content):
            # Better refused than answered without what was said.
            raise BadTurns("The model's chat template has no place for some of these turns.")
        return token_ids

    def decode(self, token_ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def answer(self, tools: Sequence[Tool] = ()) -> AnswerFilter | None:
        """Plain text needs no filter; calls come between tags."""
        return TaggedAnswer() if tools else None

    def content_ids(self, text: str, *, behind: bool = False) -> list[int]:
        """Ids of text that a client sent: never a control id, whatever the text spells.

        behind: whether the prompt has something before it.
        """
        token_ids = self._plain_ids(text, behind=behind)
        if self._control_ids.isdisjoint(token_ids):
            return token_ids
        # Added tokens that are not marked special are matched all the same. Cut after its
        # first character no spelling is whole; what a normalizer makes of the rest is dropped.
        apart = self._plain_ids_apart(text, behind=behind)
        return [token_id for token_id in apart if token_id not in self._control_ids]

    def _plain_ids_apart(self, text: str, *, behind: bool) -> list[int]:
        cuts = [place + 1 for place in self._spellings.places(text)]
        token_ids: list[int] = []
        for a, b in pairwise([0, *cuts, len(text)]):
            token_ids += self._plain_ids(text[a:b], behind=behind or a > 0)
        return token_ids

    def _message(self, turn: Turn, content: str, slots: Slots) -> dict[str, Any]:
        message: dict[str, Any] = {"role": str(turn.role), "content": content}
        if turn.tool_calls:
            message["tool_calls"] = [
                {
                    "type": "function",
                    "function": {
                        "name": self._guarded(call.name, slots),
                        "arguments": self._guarded(call.arguments, slots),
                    },
                }
                for call in turn.tool_calls
            ]
        return message

    def _guarded(self, value: Any, slots: Slots) -> Any:
        """JSON whose texts that spell a control token are markers, so that they stay text."""
        if isinstance(value, str) and self._spellings.are_in(value):
            return slots.add(json.dumps(value, ensure_ascii=False)[1:-1])
        if isinstance(value, Mapping):
            return {
                self._guarded(name, slots): self._guarded(item, slots)
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._guarded(item, slots) for item in value]
        return value

    def _check_tools(self, turns: Sequence[Turn], tools: Sequence[Tool]) -> None:
        template = str(self._tokenizer.chat_template)
        if tools and "tools" not in template:
            raise BadTools("This model's chat template has no tools.")
        if any(turn.role == Role.TOOL for turn in turns) and "tool" not in template:
            raise BadTurns(f"{Role.TOOL.value!r} is no role of this model's chat format.")
        if any(turn.tool_calls for turn in turns) and "tool_calls" not in template:
            raise BadTurns("This model's chat template has no tool calls.")

    def _templated(self, messages: list[dict[str, Any]], functions: list[dict[str, Any]]) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tools=functions or None, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is a program: it can raise anything
            reason = first_line(error)
            raise BadTurns(f"The model's chat template refuses these turns: {reason}.") from error
        return text

    def _plain_ids(self, text: str, *, behind: bool = False) -> list[int]:
        return self._ids(self._plain_tokenizer, text, behind=behind, split_special_tokens=True)

    def _template_ids(self, text: str, *, behind: bool = False) -> list[int]:
        return self._ids(self._tokenizer, text, behind=behind, split_special_tokens=False)

    def _ids(self, tokenizer: Any, text: str, *, behind: bool, **options: bool) -> list[int]:
        """behind: it continues a prompt, so it gets no leading space that nobody wrote."""
        if not text:
            return []
        anchored = behind and bool(self._anchor)
        written = f"{ANCHOR}{text}" if anchored else text
        ids: list[int] = tokenizer(written, add_special_tokens=False, **options)["input_ids"]
        if not anchored:
            return ids
        if ids[: len(self._anchor)] == self._anchor:
            return ids[len(self._anchor) :]
        return self._ids(tokenizer, text, behind=False, **options)

    def _anchor_ids(self) -> list[int]:
        """Ids of the anchor, after which a text is tokenized as a continuation.

        Tokenizers of Llama's kind put a space before a text's first word. Parts of a prompt are
        tokenized apart, and each would get one. Empty for tokenizers that do not.
        """
        anchor, begun = self._plain_ids(ANCHOR), self._plain_ids("a")
        together = self._plain_ids(f"{ANCHOR}a")
        goes_on = together[len(anchor) :]
        return anchor if together == [*anchor, *goes_on] and goes_on != begun else []


def _check(turns: Sequence[Turn]) -> None:
    """Refuse what a template would not notice, or a tokenizer not take. Raises BadTurns."""
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
