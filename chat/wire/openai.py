"""The wire of OpenAI's chat completions: requests in, objects and chunks out.

Shapes: https://platform.openai.com/docs/api-reference/chat. The official client parses
every event as JSON, so on this surface there are no ids, no names and no retry lines.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

from chat.failures import UNFORESEEN, Code, Failure
from chat.lifecycle.live import LiveResponse, Outcome
from chat.questions import Accepted
from chat.wire import events
from modelhost.types import FinishReason, ModelCard, ToolCall

DONE = "data: [DONE]\n\n"
PLACE = "the piece of text goes here"
STOPPING = "The server is stopping. The response goes on when it is back: retry to join it."


def completion(accepted: Accepted, outcome: Outcome, *, model: str, created: int) -> dict[str, Any]:
    """A complete answer; `omitted` is ours: ids of what the model did not see."""
    live = accepted.live
    return {
        "id": completion_id(live.id),
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": message(live, outcome),
                "logprobs": None,
                "finish_reason": finish_reason(outcome),
            }
        ],
        "usage": events.usage(outcome.usage),
        "omitted": accepted.omitted,
    }


def message(live: LiveResponse, outcome: Outcome) -> dict[str, Any]:
    """The assistant's message; with calls and nothing said its content is null."""
    said: dict[str, Any] = {"role": "assistant", "content": live.text, "refusal": None}
    if outcome.tool_calls:
        said["content"] = live.text or None
        said["tool_calls"] = tool_calls(live.id, outcome)
    return said


def tool_calls(response_id: UUID, outcome: Outcome) -> list[dict[str, Any]]:
    """Calls with ids of their own, their arguments as JSON text."""
    calls = enumerate(outcome.tool_calls)
    return [tool_call(f"call_{response_id.hex}_{index}", call) for index, call in calls]


def tool_call(call_id: str, call: ToolCall) -> dict[str, Any]:
    """One call. call_id: what its result refers to."""
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def completion_id(response_id: UUID) -> str:
    """The response's id as this surface writes it."""
    return f"chatcmpl-{response_id.hex}"


def finish_reason(outcome: Outcome) -> str:
    """OpenAI's word for the end."""
    cancelled = outcome.finish_reason == FinishReason.CANCELLED
    return FinishReason.STOP.value if cancelled else str(outcome.finish_reason)


class ChunkWriter:
    """The chunks of one streamed completion."""

    def __init__(self, response_id: UUID, *, model: str, created: int, include_usage: bool) -> None:
        self._head = {
            "id": completion_id(response_id),
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._include_usage = include_usage
        # Of a piece's chunk only the text differs; the rest takes twenty times as long to write.
        chunk = self.delta({"content": PLACE})
        self._before, _, self._behind = chunk.rpartition(events.one_line(PLACE))

    def text(self, text: str) -> str:
        """A chunk with a piece of the answer."""
        return f"{self._before}{events.one_line(text)}{self._behind}"

    def delta(self, delta: dict[str, Any], reason: str | None = None) -> str:
        """A chunk with one choice; its finish reason is null until the end."""
        return self._chunk([self._choice(delta, reason)], None)

    def finish(self, outcome: Outcome, omitted: Sequence[str]) -> str:
        """The chunk behind the text; `omitted` is ours, as in a complete answer."""
        return self._chunk([self._choice({}, finish_reason(outcome))], None, omitted=[*omitted])

    def usage(self, outcome: Outcome) -> str:
        """The last chunk of a stream that was asked to count."""
        return self._chunk([], events.usage(outcome.usage))

    def _choice(self, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}

    def _chunk(
        self, choices: list[dict[str, Any]], usage: dict[str, int] | None, **more: Any
    ) -> str:
        data: dict[str, Any] = {**self._head, "choices": choices, **more}
        if self._include_usage:
            data["usage"] = usage
        return f"data: {events.one_line(data)}\n\n"


async def stream(
    accepted: Accepted, *, model: str, created: int, include_usage: bool
) -> AsyncGenerator[str, None]:
    """Chunks as the text comes, then the finish, the usage if asked for, and [DONE]."""
    live = accepted.live
    write = ChunkWriter(live.id, model=model, created=created, include_usage=include_usage)
    yield write.delta({"role": "assistant", "content": ""})
    async with aclosing(live.follow()) as pieces:
        async for piece in pieces:
            yield write.text(piece.text) if piece.text else events.PING
    outcome = live.outcome
    if outcome is None or outcome.failed:
        failure = Failure(503, Code.SERVER_STOPPING, STOPPING)
        if outcome is not None:
            failure = Failure(500, Code.GENERATION_FAILED, outcome.error)
        yield failed(failure)
        return
    for index, call in enumerate(tool_calls(live.id, outcome)):
        yield write.delta({"tool_calls": [{"index": index, **call}]})
    yield write.finish(outcome, accepted.omitted)
    if include_usage:
        yield write.usage(outcome)
    yield DONE


def failed(failure: Failure) -> str:
    """The end of a stream that comes to no answer."""
    return f"data: {events.one_line(failure.as_openai())}\n\n"


def broken() -> str:
    """The end of a stream that cannot be made to its end."""
    return failed(Failure(500, Code.INTERNAL_ERROR, UNFORESEEN))


def model(card: ModelCard, *, created: int) -> dict[str, Any]:
    """One entry of `/v1/models`, with what a client may need to know besides."""
    return {
        "id": card.name,
        "object": "model",
        "created": created,
        "owned_by": "llmsite",
        "revision": card.revision,
        "context_length": card.context_length,
        "dtype": card.dtype,
        "device": card.device,
        "adapter": card.adapter or None,
    }
