"""What pages of other origins may ask for, where `LLMSITE_CORS_ORIGINS` names them (Fetch, CORS).

They come with an API key. Cookies are not for them: without leave to send credentials a browser
shows such a page nothing that came with a session.
"""

from __future__ import annotations

from corsheaders.defaults import default_headers

# What programs call. Not what is for people: the log-in, the admin, the page.
PATHS = r"^/(api|v1|chat|sendMessage)(/|$)"

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
SENT = (*default_headers, "idempotency-key", "last-event-id", *OPENAI)
READ = ("retry-after", "content-disposition")
