"""Who sent a request; found out again from its ASGI scope, where it has to be checked anew."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from django.contrib.auth import get_user
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from chat.access.authentication import ApiKeyAuthentication
from chat.limits.admission import caller_of
from chat.models import ApiKey

SCHEMES = {"ws": "http", "wss": "https"}

Scope = MutableMapping[str, Any]  # of ASGI


@dataclass(frozen=True, slots=True)
class Caller:
    """A person's session, or a program with a key."""

    user: Any
    api_key: ApiKey | None = None

    @property
    def name(self) -> str:
        """Whose places it takes."""
        return caller_of(self.api_key.pk if self.api_key else None, self.user.pk)


def authenticate(request: HttpRequest) -> Caller:
    """The caller, as far as key or session still hold. A key counts before a session.

    Raises AuthenticationFailed, NotAuthenticated.
    """
    keyed = ApiKeyAuthentication().authenticate(Request(request))
    if keyed is not None:
        return Caller(*keyed)
    SessionMiddleware(lambda _: HttpResponse()).process_request(request)
    user = get_user(request)
    if not user.is_authenticated:
        raise NotAuthenticated
    return Caller(user)


def caller_of_request(request: Any) -> Caller:
    """Who sent a request, REST framework's or Django's, that was let in."""
    shown = getattr(request, "auth", None)
    return Caller(request.user, shown if isinstance(shown, ApiKey) else None)


def as_get_request(scope: Scope) -> HttpRequest:
    """What came with this scope as a GET request without a body."""
    scheme = scope.get("scheme", "http")
    sent = {**scope, "type": "http", "method": "GET", "scheme": SCHEMES.get(scheme, scheme)}
    return ASGIRequest(sent, BytesIO())
