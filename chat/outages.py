"""Pages while the database is away: what the API says, instead of "something went wrong"."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.utils.deprecation import MiddlewareMixin

from chat.database import outage
from chat.errors import failure_of
from chat.failures import respond


class Outages(MiddlewareMixin):
    """503 with a sentence from any view that REST framework does not stand around."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> JsonResponse | None:
        """Django's hook for what a view raises; None leaves it to the next one."""
        failure = failure_of(exception) if outage(exception) else None
        return respond(failure, request.path) if failure else None
