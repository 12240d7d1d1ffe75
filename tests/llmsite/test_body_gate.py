"""The gate in front of Django: bodies are counted before anybody reads or keeps them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from llmsite.body_gate import BodyGate

LIMIT = 100


class Inner:
    """An application that keeps what it was given."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.scopes: list[Any] = []

    async def __call__(self, scope, receive, send) -> None:
        self.scopes.append(scope)
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def chunks(*bodies: bytes) -> list[dict[str, Any]]:
    """A body as a server hands it over."""
    last = len(bodies) - 1
    return [
        {"type": "http.request", "body": body, "more_body": at < last}
        for at, body in enumerate(bodies)
    ]


async def through(
    messages: Iterable[dict[str, Any]], *, headers=(), path: str = "/", seconds: float = 5.0
) -> tuple[Inner, list[dict[str, Any]], int]:
    """Send through the gate: the application, what the client got, how many messages were read."""
    inner, sent, read = Inner(), [], 0
    waiting = iter(messages)

    async def receive() -> dict[str, Any]:
        nonlocal read
        message = next(waiting, None)
        if message is None:
            await asyncio.Event().wait()
        read += 1
        return message

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": list(headers)}
    await BodyGate(inner, limit=LIMIT, seconds=seconds)(scope, receive, send)
    return inner, sent, read


async def test_a_body_arrives_whole():
    inner, sent, _ = await through(chunks(b"ab", b"", b"cd"))

    assert inner.bodies == [b"abcd"]
    assert sent[0]["status"] == 200


async def test_the_application_is_told_the_length_that_nobody_declared():
    inner, _, _ = await through(chunks(b"abcd"), headers=[(b"transfer-encoding", b"chunked")])

    assert (b"content-length", b"4") in inner.scopes[0]["headers"]


@pytest.mark.parametrize("size", [0, 1, LIMIT])
async def test_a_body_within_the_limit_passes(size):
    body = b"x" * size
    headers = [(b"content-length", str(size).encode())]
    inner, _, _ = await through(chunks(body), headers=headers)

    assert inner.bodies == [body]
    lengths = [value for name, value in inner.scopes[0]["headers"] if name == b"content-length"]
    assert lengths == ([str(size).encode()] if size else [])


async def test_a_declared_length_above_the_limit_is_refused_before_anything_is_read():
    headers = [(b"content-length", str(LIMIT + 1).encode())]
    inner, sent, read = await through(chunks(b"x"), headers=headers)

    assert (read, inner.bodies, sent[0]["status"]) == (0, [], 413)


async def test_a_body_that_grows_above_the_limit_is_refused_there():
    def endless() -> Iterator[dict[str, Any]]:
        while True:
            yield {"type": "http.request", "body": b"x" * 30, "more_body": True}

    inner, sent, read = await through(endless())

    assert (read, inner.bodies, sent[0]["status"]) == (4, [], 413)


@pytest.mark.parametrize("length", [b"-1", b"abc", b"", b"1e9", b"9" * 5000])
async def test_a_length_that_is_none_is_not_believed(length):
    _, sent, _ = await through(chunks(b"x" * 200), headers=[(b"content-length", length)])

    assert sent[0]["status"] == 413


async def test_a_body_that_takes_too_long_is_408():
    first = [{"type": "http.request", "body": b"x", "more_body": True}]
    inner, sent, _ = await through(first, seconds=0.01)

    assert (inner.bodies, sent[0]["status"]) == ([], 408)
    assert json.loads(sent[1]["body"])["code"] == "body_timeout"


@pytest.mark.parametrize("origin", [b"https://chat.example.org", b"https://evil.example"])
async def test_a_page_of_a_named_origin_may_read_the_refusal(settings, origin):
    settings.CORS_ALLOWED_ORIGINS = ["https://chat.example.org"]
    headers = [(b"content-length", str(LIMIT + 1).encode()), (b"origin", origin)]
    _, sent, _ = await through(chunks(b"x"), headers=headers, path="/v1/chat/completions")

    told = dict(sent[0]["headers"])
    assert (b"access-control-allow-origin" in told) == (origin == b"https://chat.example.org")
    assert (b"access-control-expose-headers" in told) == (origin == b"https://chat.example.org")


async def test_a_client_that_leaves_reaches_nobody():
    messages = [
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.disconnect"},
    ]
    inner, sent, _ = await through(messages)

    assert (inner.bodies, sent) == ([], [])


async def test_after_the_body_the_application_hears_the_client_leave():
    heard = []

    async def application(scope, receive, send) -> None:
        heard.extend([(await receive())["type"], (await receive())["type"]])

    messages = iter([*chunks(b"x"), {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(messages)

    gate = BodyGate(application, limit=LIMIT, seconds=5)
    await gate({"type": "http", "path": "/", "headers": []}, receive, receive)
    assert heard == ["http.request", "http.disconnect"]


async def test_other_protocols_pass_untouched():
    seen = []

    async def application(scope, receive, send) -> None:
        seen.append((scope, receive, send))

    scope = {"type": "websocket"}
    await BodyGate(application, limit=LIMIT, seconds=5)(scope, "receive", "send")
    assert seen == [(scope, "receive", "send")]


@pytest.mark.parametrize(
    ("path", "kind"), [("/v1/models", "application/json"), ("/x", "application/problem+json")]
)
async def test_a_refusal_has_its_surfaces_shape(path, kind):
    _, sent, _ = await through(chunks(b"x" * 101), path=path)

    headers = dict(sent[0]["headers"])
    body = json.loads(sent[1]["body"])
    assert headers[b"content-type"].decode() == kind
    assert (body.get("error") or body)["code"] == "body_too_large"
