"""Whether the process is alive and ready, answered by the event loop itself.

Through Django the answer would wait for a thread of its own: while all cores computed a prompt,
that took longer than the time between two probes, and they queued up for seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from chat.monitoring.health import Health
from llmsite import cross_origin


class Probes:
    """ASGI: answers GET on these paths and hands everything else on.

    probes: what to answer on each path. Called on the event loop, so it must not wait.
    """

    def __init__(self, application: Any, probes: Mapping[str, Callable[[], Health]]) -> None:
        self._application = application
        self._probes = probes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI application for `http` scopes."""
        probe = self._probes.get(scope["path"])
        if probe is None or scope["method"] != "GET":
            await self._application(scope, receive, send)
            return
        health = probe()
        body = json.dumps(health.body, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **health.headers,
            **cross_origin.shown(scope["path"], dict(scope["headers"]).get(b"origin")),
        }
        start = {
            "type": "http.response.start",
            "status": health.status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})
