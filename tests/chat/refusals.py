"""How a refusal reads, on whatever surface."""

from __future__ import annotations

import httpx


def named(answer: httpx.Response) -> tuple[str, str]:
    """Code and field of an error in its surface's shape."""
    body = answer.json()
    if str(answer.request.url.path).startswith("/v1/"):
        assert set(body) == {"error"}
        error = body["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        return error["code"], error["param"]
    assert answer.headers["Content-Type"] == "application/problem+json"
    members = {"type", "title", "status", "detail", "code", "errors"}
    assert set(body) - {"message_id"} == members
    assert body["detail"]
    return body["code"], next(iter(body["errors"]), "")
