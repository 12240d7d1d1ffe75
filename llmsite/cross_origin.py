"""What pages of other origins may ask for, where `LLMSITE_CORS_ORIGINS` names them (Fetch, CORS).

They come with an API key. Cookies are not for them: without leave to send credentials a browser
shows such a page nothing that came with a session.
"""

from __future__ import annotations

from corsheaders.defaults import default_headers
from corsheaders.middleware import CorsMiddleware
from django.http import HttpRequest, HttpResponse

# What programs call. Not what is for people: the log-in, the admin, the page.
PATHS = r"^/(api|v1|chat|sendMessage|healthz|readyz)(/|$)"

# What the OpenAI client for JavaScript sends with every request.
OPENAI = (
    "openai-organization",
    "openai-project",
    "x-stainless-arch",
    "x-stainless-helper-method",
    "x-stainless-lang",
    "x-stainless-os",
    "x-stainless-package-version",
    "x-stainless-poll-helper",
    "x-stainless-retry-count",
    "x-stainless-runtime",
    "x-stainless-runtime-version",
    "x-stainless-timeout",
)
SENT: tuple[str, ...] = (
    *default_headers,
    "idempotency-key",
    "last-event-id",
    "x-request-id",
    *OPENAI,
)
READ: tuple[str, ...] = ("retry-after", "content-disposition", "x-request-id")

_library = CorsMiddleware(lambda request: HttpResponse())


def shown(path: str, origin: bytes | None) -> dict[str, str]:
    """Headers with which a browser shows an answer that Django did not make to a page of `origin`.

    No cache keeps these answers, so that they need no `Vary`.
    """
    if origin is None:
        return {}
    request, answer = HttpRequest(), HttpResponse()
    request.path_info, request.META["HTTP_ORIGIN"] = path, origin.decode("latin-1")
    _library.add_response_headers(request, answer)
    return {name: value for name, value in answer.items() if name.startswith("access-control-")}
