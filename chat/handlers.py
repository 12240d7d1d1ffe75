"""Django's own handlers, for what never reaches a view: pages in the admin, JSON elsewhere."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.shortcuts import render
from django.views import defaults

from chat.failures import UNFORESEEN, Code, Failure, is_of_openai, respond

ADMIN = "/admin/"
NOTHING = "There is nothing here."
# Many clients begin with another route of OpenAI's, or were given an address without /v1.
OPENAI_ROUTES = "Of OpenAI's routes there are /v1/chat/completions and /v1/models here."
# Each log-in makes another CSRF token, whichever tab it is in.
OUTDATED = (
    "This form is out of date: somebody has logged in or out in this browser since it was loaded,"
    " or the browser keeps no cookies."
)


def bad_request(request: HttpRequest, exception: Exception) -> Any:
    if isinstance(exception, DisallowedHost):
        sentence = "The server does not go by this name; ALLOWED_HOSTS has those that it goes by."
        fields = {"Host": [sentence]}
        return respond(Failure(400, Code.INVALID_REQUEST, sentence, fields), request.path)
    if request.path.startswith(ADMIN):
        return _page(request, 400, "Malformed", "This address has a value that cannot be read.")
    return respond(Failure(400, Code.INVALID_REQUEST, "The request is malformed."), request.path)


def permission_denied(request: HttpRequest, exception: Exception) -> Any:
    if request.path.startswith(ADMIN):
        return _page(request, 403, "Not allowed", "Your account has no right to do this.")
    return respond(Failure(403, Code.FORBIDDEN, "This is not allowed."), request.path)


def outdated(request: HttpRequest, reason: str = "") -> Any:
    """A form whose CSRF token is another one's. Programs and scripts never meet this page."""
    if request.path.startswith(ADMIN):
        return _page(request, 403, "Out of date", OUTDATED)
    return render(request, "chat/outdated.html", {"sentence": OUTDATED}, status=403)


def not_found(request: HttpRequest, exception: Exception) -> Any:
    if request.path.startswith(ADMIN):
        return _page(request, 404, "Not found", "There is nothing at this address.")
    sentence = OPENAI_ROUTES if is_of_openai(request.path) else NOTHING
    return respond(Failure(404, Code.NOT_FOUND, sentence), request.path)


def server_error(request: HttpRequest) -> Any:
    if request.path.startswith(ADMIN):
        return defaults.server_error(request)
    return respond(Failure(500, Code.INTERNAL_ERROR, UNFORESEEN), request.path)


def _page(request: HttpRequest, status: int, title: str, sentence: str) -> Any:
    """A page of the admin, with its navigation for those who may see that."""
    frame = admin.site.each_context(request) if admin.site.has_permission(request) else {}
    context = {**frame, "title": title, "sentence": sentence}
    return render(request, "chat/refusal.html", context, status=status)
