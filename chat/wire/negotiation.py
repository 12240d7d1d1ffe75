"""Content negotiation for a service that speaks JSON, and SSE where a view decides so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

EVENT_STREAM = "text/event-stream"


class JSONUnlessStreaming(BaseContentNegotiation):
    """Never 406: `Accept: text/event-stream` is a wish that views look at themselves."""

    def select_parser(self, request: Request, parsers: Iterable[Any]) -> Any:
        """The parser for the body's type, or None, which becomes 415."""
        mine = (request.content_type or "").split(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == mine), None)

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        """The view's first renderer."""
        first = next(iter(renderers))
        return first, first.media_type or ""


def wants_events(request: Request) -> bool:
    """Whether the caller asked for an event stream by its Accept header."""
    return EVENT_STREAM in request.headers.get("Accept", "")
