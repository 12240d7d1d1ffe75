"""Answers to requests that are refused where their bytes arrive, before Django is asked."""

from __future__ import annotations

import json
from http import HTTPStatus

from chat.failures import Failure
from chat.monitoring import metrics
from llmsite import cross_origin, request_ids


def refusal(
    failure: Failure, path: str, *, name: bytes | None = None, origin: bytes | None = None
) -> bytes:
    """The whole answer, behind which the connection ends. It is counted.

    name, origin: the request's own `X-Request-ID` and `Origin`.
    """
    metrics.refused(failure.code)
    body = json.dumps(failure.body(path)).encode()
    headers = {
        "Content-Type": failure.content_type(path),
        "Content-Length": len(body),
        "Connection": "close",
        request_ids.HEADER: request_ids.named(name),
        **cross_origin.shown(path, origin),
    }
    lines = [
        f"HTTP/1.1 {failure.status} {HTTPStatus(failure.status).phrase}",
        *(f"{header}: {value}" for header, value in headers.items()),
    ]
    head = "".join(f"{line}\r\n" for line in [*lines, ""])
    return head.encode("latin-1") + body
