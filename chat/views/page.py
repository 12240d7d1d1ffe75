"""The chat page: a small front end over `/sendMessage`, to try the service and to copy from."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponse
from django.views.generic import TemplateView

POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'"


class ChatPage(LoginRequiredMixin, TemplateView):
    """Shown after login; text of the model is only ever set as text."""

    template_name = "chat/page.html"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Nothing from elsewhere runs or loads on this page."""
        response = super().dispatch(request, *args, **kwargs)
        response.headers["Content-Security-Policy"] = POLICY
        return response
