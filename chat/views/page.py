"""The chat page: a small front end over the API, to try the service and to copy from."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.cache import add_never_cache_headers
from django.views.generic import TemplateView

POLICY = "; ".join(
    [
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        # The browser itself refuses innerHTML and its like: text can only be set as text.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)


class ChatPage(LoginRequiredMixin, TemplateView):
    """Shown after login; text of the model is only ever set as text."""

    template_name = "chat/page.html"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Nothing from elsewhere runs or loads on this page.

        No browser keeps it: whoever goes back after a log-out would see what it showed.
        """
        response = super().dispatch(request, *args, **kwargs)
        response.headers["Content-Security-Policy"] = POLICY
        add_never_cache_headers(response)
        return response
