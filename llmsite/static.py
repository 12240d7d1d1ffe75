"""Static files straight from the packages, under ASGI."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware


class StaticFiles(WhiteNoiseMiddleware):
    """WhiteNoise with whole answers: it streams files synchronously, which Django warns about.

    The files are small, and read once by a browser that then caches them.
    """

    def serve(self, static_file: Any, request: HttpRequest) -> HttpResponseBase:
        """One file, or its headers."""
        streamed: Any = super().serve(static_file, request)
        whole = HttpResponse(b"".join(streamed.streaming_content), status=streamed.status_code)
        for name, value in streamed.items():
            whole[name] = value
        streamed.close()
        return whole
