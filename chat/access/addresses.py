"""Where a request comes from, as far as it can be known."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """The client's IP address, behind as many proxies as LLMSITE_PROXIES says.

    Each of them appends the address that it saw to X-Forwarded-For; what stands in front of
    these was sent by the client, and may say anything.
    """
    peer = str(request.META.get("REMOTE_ADDR") or "")
    if not settings.LLMSITE_PROXIES:
        return peer
    seen = [one.strip() for one in request.headers.get("X-Forwarded-For", "").split(",")]
    if len(seen) < settings.LLMSITE_PROXIES:
        return peer
    try:
        return str(ipaddress.ip_address(seen[-settings.LLMSITE_PROXIES]))
    except ValueError:
        return peer
