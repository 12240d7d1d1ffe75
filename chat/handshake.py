"""Who opens a WebSocket. The same who may ask over HTTP, by the same means.

A handshake carries a browser's cookies whichever page it comes from, and no CORS holds it back:
a session counts only on our own pages (RFC 6455, section 10.2). Browsers cannot send a key here, so
what has one is a program.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from django.contrib.auth import get_user
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.request import Request

from chat.admission import caller_of
from chat.authentication import ApiKeyAuthentication
from chat.models import ApiKey

SCHEMES = {"ws": "http", "wss": "https"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever talks through a socket."""

    user: Any
    api_key: ApiKey | None = None

    @property
    def name(self) -> str:
        """Whose places it takes."""
        return caller_of(self.api_key.pk if self.api_key else None, self.user.pk)


def identify(scope: MutableMapping[str, Any]) -> Caller:
    """Who sent this handshake, as far as that still holds: look again before each deed.

    Raises AuthenticationFailed, NotAuthenticated, PermissionDenied, DisallowedHost.
    """
    request = request_of(scope)
    request.get_host()
    keyed = ApiKeyAuthentication().authenticate(Request(request))
    if keyed is not None:
        return Caller(*keyed)
    _passed(SessionMiddleware).process_request(request)
    user = get_user(request)
    if not user.is_authenticated:
        raise NotAuthenticated
    if not _passed(OwnPages).sent(request):
        raise PermissionDenied("Other sites may not open a socket here.")
    return Caller(user)


def request_of(scope: MutableMapping[str, Any]) -> HttpRequest:
    """The handshake as the GET request that it is."""
    scheme = SCHEMES.get(scope.get("scheme", "ws"), "http")
    return ASGIRequest({**scope, "type": "http", "method": "GET", "scheme": scheme}, BytesIO())


class OwnPages(CsrfViewMiddleware):
    """Django's judgement on an Origin, which knows CSRF_TRUSTED_ORIGINS."""

    def sent(self, request: HttpRequest) -> bool:
        """Whether a page of ours sent this; what names no origin is no page."""
        return "Origin" in request.headers and bool(
            self._origin_verified(request)  # type: ignore[attr-defined]
        )


def _passed(middleware: type[Any]) -> Any:
    """A middleware for its own methods, with nothing behind it."""
    return middleware(lambda request: HttpResponse())
