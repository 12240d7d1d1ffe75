"""How ChatGLM3 writes a conversation: its tokenizer and its chat format, without remote code.

The vocabulary is a sentencepiece model; nine control ids follow it and no text can
produce them. Source: the tokenizer published with ChatGLM3-6B (tokenization_chatglm.py),
checked id by id against its answers in tests/modelhost/test_chatglm.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from modelhost.errors import BadTurns, LoadFailed
from modelhost.template import HALF_CHARACTER
from modelhost.toolcalls import ChatGLMAnswer, write_python_call
from modelhost.types import Role, Tool, Turn

CONTROL_TOKENS = (
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "sop",
    "eop",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
)
TOKENIZER_FILE = "tokenizer.model"
TOOLS_PERSONA = (  # the sentence that ChatGLM3 was trained with
    "Answer the following questions as best as you can. You have access to the following tools:"
)


class ChatGLMRole(StrEnum):
    """Who may speak to ChatGLM3; a tool's result is an observation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    OBSERVATION = "observation"


class ChatGLMFormat:
    """`[gMASK] sop`, then for every turn its role, its metadata line and its content."""

    def __init__(self, file: Path) -> None:
        """Raises LoadFailed."""
        if not file.is_file():
            raise LoadFailed(f"{file} is missing. It is part of every ChatGLM3 release; add it.")
        try:
            self._pieces = SentencePieceProcessor(model_file=str(file))
        except (RuntimeError, OSError) as error:
            raise LoadFailed(f"{file} is no sentencepiece model. Download it again.") from error
        first = self._pieces.vocab_size()
        self.control_ids = {token: first + at for at, token in enumerate(CONTROL_TOKENS)}
        self.vocabulary = first
        self.stop_ids = frozenset(
            {
                self._pieces.eos_id(),
                self.control_ids["<|user|>"],
                self.control_ids["<|observation|>"],
            }
        )

    def encode(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> list[int]:
        """Ids of the conversation, opened for the assistant. Raises BadTurns.

        Each part is a call of its own on the sentencepiece model, so the space that it puts in
        front of a text appears each time, as in training.
        """
        ids = [self.control_ids["[gMASK]"], self.control_ids["sop"]]
        for turn in _with_tools(turns, tools):
            for part in _spelled_out(turn):
                ids += self._turn_ids(part)
        return [*ids, self.control_ids["<|assistant|>"]]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids; control ids and ids beyond the vocabulary have none."""
        known = [token_id for token_id in token_ids if 0 <= token_id < self.vocabulary]
        text: str = self._pieces.decode(known)
        return text

    def answer(self, tools: Sequence[Tool] = ()) -> ChatGLMAnswer:
        """Hides the line that the model begins every answer with, and reads calls."""
        return ChatGLMAnswer([tool["name"] for tool in tools])

    def content_ids(self, text: str) -> list[int]:
        """Ids of text that a client sent; sentencepiece knows no control token to find in it."""
        ids: list[int] = self._pieces.encode(text)
        return ids

    def _turn_ids(self, turn: Turn) -> list[int]:
        if turn.role not in set(ChatGLMRole):
            raise BadTurns(f"ChatGLM3 knows no role {turn.role!r}.")
        if "\n" in turn.metadata:
            raise BadTurns("Metadata is one line.")
        content = turn.content
        if turn.tools:
            content += "\n" + json.dumps(turn.tools, indent=4, ensure_ascii=False)
        if HALF_CHARACTER.search(turn.metadata + content):
            raise BadTurns("A turn is not valid Unicode: it holds half a character.")
        return [
            self.control_ids[f"<|{turn.role}|>"],
            *self.content_ids(f"{turn.metadata}\n"),
            *self.content_ids(content),
        ]


def _with_tools(turns: Sequence[Turn], tools: Sequence[Tool]) -> list[Turn]:
    """ChatGLM3 knows its tools from the first system turn."""
    if not tools:
        return list(turns)
    if turns and turns[0].role == Role.SYSTEM:
        return [replace(turns[0], tools=tools), *turns[1:]]
    return [Turn(Role.SYSTEM, TOOLS_PERSONA, tools=tools), *turns]


def _spelled_out(turn: Turn) -> Iterator[Turn]:
    """A turn in ChatGLM3's own words: a call is metadata and code, its result an observation."""
    if turn.role == Role.TOOL:
        yield replace(turn, role=ChatGLMRole.OBSERVATION)
        return
    if turn.content or not turn.tool_calls:
        yield turn
    for call in turn.tool_calls:
        yield Turn(turn.role, write_python_call(call), metadata=call.name)
