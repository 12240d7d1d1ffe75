"""The shapes of the project's own routes: each is built here and nowhere else."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple
from uuid import UUID

from django.utils import timezone

from chat.failures import UNFORESEEN, Code
from chat.lifecycle.live import LiveResponse, Outcome
from chat.models import Response
from chat.questions import Accepted
from modelhost.types import Role, Turn, Usage

# A comment: it shows that the stream lives. One newline ends it, because an empty line is an event
# without data for some clients (OpenAI's own, httpx-sse, fetch-event-source).
PING = ": ping\n"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


encode = json.JSONEncoder(ensure_ascii=False).encode  # kept: `json.dumps` makes one for each call


def one_line(data: dict[str, Any] | str) -> str:
    """JSON without a line end in it: clients cut streams with splitlines, which knows these too."""
    text = encode(data)
    if text.isascii():
        return text
    return text.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


class Event(NamedTuple):
    """What a reader of one response is told.

    name: empty for a piece of text. data: always with the response's `message_id`.
    cursor: where the reader is behind it; None when nothing was read.
    """

    name: str
    data: dict[str, Any]
    cursor: int | None = None

    def as_sse(self) -> str:
        """One server-sent event with one line of JSON; its id is what `Last-Event-ID` returns."""
        lines = []
        if self.name:
            lines.append(f"event: {self.name}")
        if self.cursor is not None:
            lines.append(f"id: {self.data['message_id']}:{self.cursor}")
        lines.append(f"data: {one_line(self.data)}")
        return "\n".join(lines) + "\n\n"

    def as_message(self) -> dict[str, Any]:
        """One message of a WebSocket."""
        cursor = {} if self.cursor is None else {"cursor": self.cursor}
        return {"type": self.name or "text", **self.data, **cursor}


def opening(response_id: UUID, conversation: UUID, cursor: int) -> Event:
    """What is sent at once: daphne holds the headers back until there is a first byte, and an
    EventSource that loses its connection before the first token must not ask anew.
    """
    data = {"message_id": response_id.hex, "conversation": str(conversation)}
    return Event("accepted", data, cursor)


def delta(response_id: UUID, text: str, cursor: int) -> Event:
    """A piece of text and the cursor behind it."""
    return Event("", {"text": text, "message_id": response_id.hex}, cursor)


def queued(response_id: UUID, position: int) -> Event:
    """How many are ahead, while it waits for its first token. No cursor: nothing was read."""
    return Event("queued", {"message_id": response_id.hex, "position": position})


def terminal(
    response_id: UUID, outcome: Outcome, cursor: int, omitted: Sequence[str] = ()
) -> Event:
    """The one event that ends a stream: `done` or `error`.

    omitted: ids of earlier prompts and responses that the model did not see.
    """
    if outcome.failed:
        problem = {
            "message_id": response_id.hex,
            "code": Code.GENERATION_FAILED,
            "detail": outcome.error,
        }
        return Event("error", problem, cursor)
    data: dict[str, Any] = {
        "message_id": response_id.hex,
        "finish_reason": outcome.finish_reason,
        "usage": usage(outcome.usage),
        "omitted": list(omitted),
    }
    return Event("done", data, cursor)


def broken(response_id: UUID) -> str:
    """The end of a stream that cannot be made to its end; the response itself may be well."""
    problem = {
        "message_id": response_id.hex,
        "code": Code.INTERNAL_ERROR,
        "detail": UNFORESEEN,
    }
    return Event("error", problem).as_sse()


async def follow(
    live: LiveResponse, after: int = 0, *, omitted: Sequence[str] = ()
) -> AsyncGenerator[Event | None, None]:
    """Every piece behind the cursor as it comes, then the terminal event.

    Without one it ends when this process does: the reader comes back with its cursor. None says
    that there was nothing to tell for a while.
    """
    told: int | None = None
    async with aclosing(live.queue()) as positions:
        async for position in positions:
            if position is None or position == told:
                yield None
            else:
                yield queued(live.id, position)
            told = position
    async with aclosing(live.follow(after)) as pieces:
        async for piece in pieces:
            after = piece.cursor
            yield delta(live.id, piece.text, after) if piece.text else None
    if live.outcome is not None:
        yield terminal(live.id, live.outcome, after, omitted)


async def stream(
    live: LiveResponse, after: int = 0, *, conversation: UUID, omitted: Sequence[str] = ()
) -> AsyncGenerator[str, None]:
    """The same as server-sent events, behind what is told at once."""
    yield opening(live.id, conversation, after).as_sse()
    async with aclosing(follow(live, after, omitted=omitted)) as events:
        async for event in events:
            yield PING if event is None else event.as_sse()


async def whole(
    live: LiveResponse, *, conversation: UUID, omitted: Sequence[str] = ()
) -> AsyncGenerator[str, None]:
    """The complete text as a single piece, then the terminal event."""
    yield opening(live.id, conversation, 0).as_sse()
    async with aclosing(live.until_end()) as beats:
        async for _ in beats:
            yield PING
    if live.outcome is not None:
        text = live.text
        yield delta(live.id, text, len(text)).as_sse()
        yield terminal(live.id, live.outcome, len(text), omitted).as_sse()


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
