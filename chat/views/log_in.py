"""What is said to somebody who gave too many wrong passwords."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def locked_out(request: HttpRequest, response: Any = None, credentials: Any = None) -> HttpResponse:
    """The log-in page, without a look at the password (django-axes' AXES_LOCKOUT_CALLABLE)."""
    seconds = int(settings.AXES_COOLOFF_TIME.total_seconds())
    told = {"minutes": seconds // 60, "next": request.POST.get("next", "")}
    page = render(request, "chat/login.html", told, status=429)
    page["Retry-After"] = str(seconds)
    return page
