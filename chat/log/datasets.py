"""One line of an export for one response: each format's shape is built here and nowhere else.

records: the rows with all their columns, to be kept or counted.
messages: OpenAI's fine-tuning format, which TRL and GLM-4 read, too
(https://platform.openai.com/docs/guides/supervised-fine-tuning).
conversations: ChatGLM3's fine-tuning format (`finetune_demo/README.md` in THUDM/ChatGLM3).

What a model learns from is what the model saw: turns that did not fit the context are left out.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from django.db.models import TextChoices
from rest_framework.utils.encoders import JSONEncoder

from chat.conversations import personas
from chat.conversations.trails import Tree
from chat.models import Prompt, Response, Verdict
from chat.wire.openai import tool_call
from chat.wire.representations import ConversationRowSerializer, ResponseRowSerializer
from modelhost.types import Role, Tool, Turn


class Format(TextChoices):
    """What a line holds."""

    RECORDS = "records"
    MESSAGES = "messages"
    CONVERSATIONS = "conversations"


def line(row: Response, tree: Tree, layout: Format, *, verdicts: bool) -> str:
    """One response as one line of JSON, its newline included.

    tree: has the way to the row. verdicts: whether the reader may see what reviewers think.
    """
    if layout is Format.RECORDS:
        data = record(row, verdicts=verdicts)
    else:
        turns = turns_of(row, tree)
        tools = {"tools": _WRITE_TOOLS[layout](row.tools)} if row.tools else {}
        data = {**tools, layout.value: _WRITE_TURNS[layout](turns)}
    text = json.dumps(data, ensure_ascii=False, cls=JSONEncoder)
    return text.translate(_ALSO_LINE_ENDS) + "\n"


def record(row: Response, *, verdicts: bool) -> dict[str, Any]:
    """A response with its prompt and conversation, and everything that is known of them."""
    data = {
        "response": ResponseRowSerializer(row).data,
        "prompt": {
            "id": row.prompt_id,
            "role": row.prompt.role,
            "content": row.prompt.content,
            "earlier": row.prompt.earlier,
            "follows": row.prompt.follows_id,
            "created_at": row.prompt.created_at,
        },
        "conversation": ConversationRowSerializer(row.prompt.conversation).data,
        "user": row.user.get_username(),
    }
    return data | {"verdicts": [_verdict(one) for one in row.verdicts.all()]} if verdicts else data


def turns_of(row: Response, tree: Tree) -> list[Turn]:
    """The turns that the model saw, its persona first, and its answer."""
    system = personas.seen(row)
    turns = [Turn(Role.SYSTEM, system)] if system else []
    unseen = set(row.omitted)
    for each in tree.trail(row):
        said = each.turns() if isinstance(each, Prompt) else [each.turn()]
        if each.pk.hex in unseen:
            # Of the prompt itself its earlier turns did not fit: what it asks always does.
            said = said[-1:] if each.pk == row.prompt_id else []
        turns += said
    return turns


def as_messages(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    """Calls have ids, and each result says which call it is of: the oldest that has none."""
    messages: list[dict[str, Any]] = []
    open_calls: deque[str] = deque()
    for turn in turns:
        message: dict[str, Any] = {"role": str(turn.role), "content": turn.content}
        if turn.tool_calls:
            message["content"] = turn.content or None
            open_calls = deque(f"call_{len(messages)}_{at}" for at in range(len(turn.tool_calls)))
            named = zip(open_calls, turn.tool_calls, strict=True)
            message["tool_calls"] = [tool_call(call_id, call) for call_id, call in named]
        elif turn.role == Role.TOOL and open_calls:
            message["tool_call_id"] = open_calls.popleft()
        messages.append(message)
    return messages


def as_conversation(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    """A call and its result are one turn of the role tool; nothing was observed of an open call.

    A result without a call is a turn of the model's own role for it.
    """
    said: list[dict[str, Any]] = []
    open_calls: deque[dict[str, Any]] = deque()
    for turn in turns:
        if turn.role == Role.TOOL:
            if open_calls:
                open_calls.popleft()["observation"] = turn.content
            else:
                said.append({"role": "observation", "content": turn.content})
            continue
        if turn.content or not turn.tool_calls:
            said.append({"role": str(turn.role), "content": turn.content})
        open_calls = deque(
            {"role": "tool", "name": call.name, "parameters": call.arguments, "observation": ""}
            for call in turn.tool_calls
        )
        said += open_calls
    return said


# Next line, line and paragraph separator: JSON leaves them as they are, and many readers (Python's
# `splitlines`, httpx's `iter_lines`) end a line there. They stand in strings only.
_ALSO_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


def _as_functions(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    return [{"type": "function", "function": tool} for tool in tools]


def _as_they_are(tools: Iterable[Tool]) -> list[Mapping[str, Any]]:
    return list(tools)


_WRITE_TURNS = {Format.MESSAGES: as_messages, Format.CONVERSATIONS: as_conversation}
_WRITE_TOOLS: dict[Format, Any] = {
    Format.MESSAGES: _as_functions,
    Format.CONVERSATIONS: _as_they_are,
}


def _verdict(one: Verdict) -> dict[str, Any]:
    reviewer = one.reviewer.get_username() if one.reviewer else None
    said = {"value": one.value, "note": one.note, "reviewer": reviewer}
    return said | {"judged_at": one.judged_at}
