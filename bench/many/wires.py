"""The three ways to ask for a streamed answer, and to read one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.many.answers import Answer
from bench.many.exchange import Raw, exchange
from bench.many.jobs import Target
from bench.many.pace import Turn

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wire:
    """path: where to POST. body: of model, turns and max_tokens. text: of an event's data.

    ended: whether an event says that the answer is complete; None where only the body's end does.
    """

    path: str
    body: Callable[[str, list[Turn], int], Body]
    text: Callable[[Body], str]
    ended: Callable[[Body], bool] | None


def openai_body(model: str, turns: list[Turn], max_tokens: int) -> Body:
    asked = {"model": model, "messages": turns, "max_tokens": max_tokens}
    return {**asked, "temperature": 0, "stream": True}


def openai_text(data: Body) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in data.get("choices", ()))


def openai_ended(data: Body) -> bool:
    return any(choice.get("finish_reason") for choice in data.get("choices", ()))


def own_body(model: str, turns: list[Turn], max_tokens: int) -> Body:
    *history, last = turns
    asked = {"prompt": last["content"], "history": history, "max_tokens": max_tokens}
    return {**asked, "temperature": 0, "stream": True}


def own_text(data: Body) -> str:
    return str(data.get("text", ""))


def own_ended(data: Body) -> bool:
    return "finish_reason" in data


def tutorial_body(model: str, turns: list[Turn], max_tokens: int) -> Body:
    return {"messages": turns, "max_tokens": max_tokens}


WIRES = {
    "openai": Wire("/v1/chat/completions", openai_body, openai_text, openai_ended),
    "own": Wire("/chat/new/message/", own_body, own_text, own_ended),
    "tutorial": Wire("/chat", tutorial_body, own_text, None),
}


async def ask(target: Target, name: str, turns: list[Turn], max_tokens: int) -> Answer:
    """One answer from a server."""
    wire = WIRES[target.wire]
    body = json.dumps(wire.body(target.model, turns, max_tokens)).encode()
    try:
        raw = await exchange(target.port, "POST", wire.path, body=body, key=target.key)
        return read(raw, name, wire)
    except (OSError, TimeoutError, ValueError) as error:
        return Answer(name, 0.0, error=f"{type(error).__name__}: {error}")


def read(raw: Raw, name: str, wire: Wire) -> Answer:
    """The answer in what came."""
    answer = Answer(name, raw.begun)
    if raw.status != 200:
        answer.error = f"status {raw.status}: {raw.body[:200]!r}"
        return answer
    ended = wire.ended is None and raw.whole
    for at, data in events(raw):
        if "error" in data or "code" in data:
            answer.error = json.dumps(data)[:200]
        if text := wire.text(data):
            answer.pieces.append((at, text))
        ended = ended or (wire.ended is not None and wire.ended(data))
    if not ended:
        answer.error = answer.error or "the stream was cut"
    return answer


def events(raw: Raw) -> Iterator[tuple[float, Body]]:
    """The data of server-sent events, and when their line was complete."""
    rest = b""
    for at, data in raw.pieces():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                yield at, json.loads(line[6:])
