"""The shapes of the project's own routes: each is built here and nowhere else."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

from django.utils import timezone

from chat.errors import Code
from chat.live import LiveResponse, Outcome
from chat.models import Response
from chat.questions import Accepted
from modelhost.types import Role, Turn, Usage

PING = ": ping\n\n"  # a comment: it shows that the stream lives
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


def one_line(data: dict[str, Any]) -> str:
    """JSON without a line end in it: clients cut streams with splitlines, which knows these too."""
    text = json.dumps(data, ensure_ascii=False)
    return text.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def event(data: dict[str, Any], *, name: str = "", cursor: str = "") -> str:
    """One server-sent event with one line of JSON."""
    lines = []
    if name:
        lines.append(f"event: {name}")
    if cursor:
        lines.append(f"id: {cursor}")
    lines.append(f"data: {one_line(data)}")
    return "\n".join(lines) + "\n\n"


def opening(response_id: UUID, cursor: int) -> str:
    """An id alone, at once: daphne holds the headers back until there is a first byte, and an
    EventSource that lost its connection before the first token must not ask anew.
    """
    return f"id: {response_id.hex}:{cursor}\n\n"


def delta(response_id: UUID, text: str, cursor: int) -> str:
    """A piece of text. Its id is the cursor that `Last-Event-ID` brings back."""
    data = {"text": text, "message_id": response_id.hex}
    return event(data, cursor=f"{response_id.hex}:{cursor}")


def queued(response_id: UUID, position: int) -> str:
    """How many are ahead, while it waits for its first token. No cursor: nothing was read."""
    return event({"message_id": response_id.hex, "position": position}, name="queued")


def terminal(response_id: UUID, outcome: Outcome, cursor: int, omitted: Sequence[str] = ()) -> str:
    """The one event that ends a stream: `done` or `error`.

    omitted: ids of earlier prompts and responses that the model did not see.
    """
    position = f"{response_id.hex}:{cursor}"
    if outcome.failed:
        problem = {
            "message_id": response_id.hex,
            "code": Code.GENERATION_FAILED,
            "detail": outcome.error,
        }
        return event(problem, name="error", cursor=position)
    data: dict[str, Any] = {
        "message_id": response_id.hex,
        "finish_reason": outcome.finish_reason,
        "usage": usage(outcome.usage),
        "omitted": list(omitted),
    }
    return event(data, name="done", cursor=position)


async def stream(
    live: LiveResponse, after: int = 0, *, omitted: Sequence[str] = ()
) -> AsyncGenerator[str, None]:
    """Every piece behind the cursor as it comes, then the terminal event.

    Without one it ends when this process does: the reader comes back with its cursor.
    """
    yield opening(live.id, after)
    told: int | None = None
    async with aclosing(live.queue()) as positions:
        async for position in positions:
            if position is None or position == told:
                yield PING
            else:
                yield queued(live.id, position)
            told = position
    async with aclosing(live.follow(after)) as pieces:
        async for piece in pieces:
            after = piece.cursor
            yield delta(live.id, piece.text, after) if piece.text else PING
    if live.outcome is not None:
        yield terminal(live.id, live.outcome, after, omitted)


async def whole(live: LiveResponse, *, omitted: Sequence[str] = ()) -> AsyncGenerator[str, None]:
    """The complete text as a single piece, then the terminal event."""
    yield opening(live.id, 0)
    async with aclosing(live.follow()) as pieces:
        async for piece in pieces:
            if not piece.text:
                yield PING
    if live.outcome is not None:
        text = live.text
        yield delta(live.id, text, len(text))
        yield terminal(live.id, live.outcome, len(text), omitted)


def parse_cursor(text: str) -> tuple[UUID, int] | None:
    """Response and offset of a `Last-Event-ID`; None when it is none of ours."""
    name, _, offset = text.partition(":")
    try:
        return UUID(hex=name), max(0, int(offset))
    except ValueError:
        return None


def usage(counts: Usage) -> dict[str, int]:
    """Token counts, in the names that everybody uses."""
    return {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.total_tokens,
    }


def message(accepted: Accepted, outcome: Outcome) -> dict[str, Any]:
    """The answer to `POST /chat/new/message/` in the tutorial's shape, and what it cost."""
    answer = Turn(Role.ASSISTANT, accepted.live.text)
    return {
        "response": answer.content,
        "history": history([*accepted.turns, answer]),
        "status": 200,
        "time": timezone.localtime().strftime(TIME_FORMAT),
        "message_id": accepted.response_id.hex,
        "conversation": str(accepted.prompt.conversation_id),
        "usage": usage(outcome.usage),
        "omitted": accepted.omitted,
    }


def history(turns: Sequence[Turn]) -> list[dict[str, str]]:
    """Turns as clients send and receive them."""
    return [
        {"role": turn.role, "content": turn.content}
        | ({"metadata": turn.metadata} if turn.metadata else {})
        for turn in turns
    ]


def is_at_end(response: Response, cursor: int) -> bool:
    """Whether a reader with this cursor has everything that will ever come."""
    return not response.active and cursor >= len(response.text)
