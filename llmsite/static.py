"""Static files straight from the packages, under ASGI."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware

OWN = "chat/"  # our own files, below the prefix of all


class StaticFiles(WhiteNoiseMiddleware):
    """WhiteNoise with whole answers: it streams files synchronously, which Django warns about.

    The files are small. Their lengths are told as they are read: WhiteNoise knows those of its
    start, and a client would wait for the rest of a file that was replaced by a shorter one.
    Their ETags are of the start, too: a browser keeps what this process began with until the next.
    """

    def add_cache_headers(self, headers: Any, path: str, url: str) -> None:
        """Of packages a browser keeps copies for a while; of ours it asks each time if they hold.

        Our scripts are modules that import one another: after an update some of them from before
        would meet some from now.
        """
        if url.startswith(f"{self.static_prefix}{OWN}"):
            headers["Cache-Control"] = "no-cache"
        else:
            super().add_cache_headers(headers, path, url)

    def serve(self, static_file: Any, request: HttpRequest) -> HttpResponseBase:
        """One file, whole, or its headers. Raises Http404 where it is gone."""
        request.META.pop("HTTP_RANGE", None)  # a part is a part of what it was at the start
        try:
            streamed: Any = super().serve(static_file, request)
        except FileNotFoundError as error:
            raise Http404 from error
        whole = HttpResponse(b"".join(streamed.streaming_content), status=streamed.status_code)
        for name, value in streamed.items():
            whole[name] = value
        if request.method == "GET" and "Content-Length" in whole:
            whole["Content-Length"] = str(len(whole.content))
        streamed.close()
        return whole
