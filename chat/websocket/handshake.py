"""Who opens a WebSocket: whoever may ask over HTTP, by the same means.

A handshake carries a browser's cookies whichever page it comes from, and no CORS holds it back:
a session counts only on our own pages (RFC 6455, section 10.2). Browsers cannot send a key here:
whoever has one is a program.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from rest_framework.exceptions import PermissionDenied

from chat.access.callers import Caller, Scope, as_get_request, authenticate


def identify(scope: Scope) -> Caller:
    """Who sent this handshake, as far as that still holds: ask again for each message.

    Raises AuthenticationFailed, NotAuthenticated, PermissionDenied, DisallowedHost.
    """
    request = as_get_request(scope)
    request.get_host()
    caller = authenticate(request)
    if caller.api_key is None and not OwnPages(lambda _: HttpResponse()).sent(request):
        raise PermissionDenied("Other sites may not open a socket here.")
    return caller


class OwnPages(CsrfViewMiddleware):
    """Django's judgement on an Origin, which knows CSRF_TRUSTED_ORIGINS."""

    def sent(self, request: HttpRequest) -> bool:
        """Whether a page of ours sent this; what names no origin is no page."""
        return "Origin" in request.headers and bool(
            self._origin_verified(request)  # type: ignore[attr-defined]
        )
