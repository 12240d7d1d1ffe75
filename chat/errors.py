"""From exceptions to failed requests (`chat.failures`), in one place."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import Http404, JsonResponse
from rest_framework import exceptions
from rest_framework.views import set_rollback

from chat.connections import connection_of
from chat.database import outage
from chat.failures import Code, Failure, as_response, respond
from chat.idempotency import HEADER, KeyReused
from chat.lifecycle.supervisor import supervisor
from chat.limits.admission import Overloaded
from chat.limits.readers import RETRY_AFTER, TooManyStreams
from chat.limits.storage import DiskFull
from modelhost import errors as modelhost

logger = logging.getLogger(__name__)

RESTART = 10  # seconds until a server that stops is probably back
NO_KEY = "Who asks is not known: send `Authorization: Bearer` with an API key, or log in."


class ConversationBusy(Exception):
    """The conversation's last response is still being generated."""


class ServerStopping(Exception):
    """Nothing new is taken in, and what runs goes on in the next process."""

    def __init__(self, message: str = "The server is stopping; ask again in a moment.") -> None:
        super().__init__(message)


class Unanswered(Exception):
    """A response was begun, and who asked for it does not get it with this request."""

    def __init__(self, response_id: UUID, cause: Exception) -> None:
        super().__init__(str(cause))
        self.response_id = response_id
        self.cause = cause


class ModelNotFound(Exception):
    """A name that is not the served model's."""


def failure_of(error: Exception) -> Failure | None:
    """The failure that an exception means; None for one that nobody foresaw."""
    if isinstance(error, Unanswered):
        failure = failure_of(error.cause)
        return failure and replace(failure, message_id=error.response_id.hex)
    if isinstance(error, modelhost.NotReady) and supervisor.draining:
        return _of_chat(ServerStopping())  # its engine is gone, and no other one comes
    if isinstance(error, modelhost.ModelHostError):
        return _of_modelhost(error)
    if isinstance(error, exceptions.APIException):
        return _of_rest_framework(error)
    if sentence := outage(error):
        logger.error("the database did not answer: %s", error)
        return Failure(503, Code.DATABASE_UNAVAILABLE, sentence, retry_after=5)
    return _of_chat(error)


def _of_chat(error: Exception) -> Failure | None:
    match error:
        case ConversationBusy():
            return Failure(409, Code.CONVERSATION_BUSY, str(error), retry_after=2)
        case KeyReused():
            return Failure(422, Code.IDEMPOTENCY_KEY_REUSED, str(error), {HEADER: [str(error)]})
        case Overloaded():
            after = error.retry_after
            return Failure(429, Code.TOO_MANY_REQUESTS, str(error), retry_after=after)
        case TooManyStreams():
            return Failure(429, Code.TOO_MANY_STREAMS, str(error), retry_after=RETRY_AFTER)
        case DiskFull():
            return Failure(507, Code.INSUFFICIENT_STORAGE, str(error))
        case ServerStopping():
            return Failure(503, Code.SERVER_STOPPING, str(error), retry_after=RESTART)
        case ModelNotFound():
            return Failure(404, Code.MODEL_NOT_FOUND, str(error), {"model": [str(error)]})
        case Http404():
            return Failure(404, Code.NOT_FOUND, "There is nothing here.")
        case PermissionDenied():
            return Failure(403, Code.FORBIDDEN, str(error) or "This is not allowed.")
    return None


def _of_modelhost(error: modelhost.ModelHostError) -> Failure:
    text = str(error)
    match error:
        case modelhost.PromptTooLong():
            return Failure(400, Code.CONTEXT_LENGTH_EXCEEDED, text, {"prompt": [text]})
        case modelhost.BadSampling():
            return Failure(400, Code.INVALID_REQUEST, text, {error.field: [text]})
        case modelhost.BadTools():
            return Failure(400, Code.INVALID_REQUEST, text, {"tools": [text]})
        case modelhost.BadTurns():
            return Failure(400, Code.INVALID_REQUEST, text, {"history": [text]})
        case modelhost.Busy():
            return Failure(429, Code.TOO_MANY_REQUESTS, text, retry_after=10)
        case modelhost.NotReady():
            return Failure(503, Code.MODEL_LOADING, text, retry_after=5)
        case modelhost.LoadFailed():
            return Failure(503, Code.MODEL_FAILED, text, retry_after=60)
        case modelhost.GenerationFailed():
            return Failure(503, Code.GENERATION_FAILED, text, retry_after=5)
    return Failure(500, Code.INTERNAL_ERROR, text)


REST_FRAMEWORK_CODES: dict[type[exceptions.APIException], Code] = {
    exceptions.NotAuthenticated: Code.NOT_AUTHENTICATED,
    exceptions.AuthenticationFailed: Code.NOT_AUTHENTICATED,
    exceptions.PermissionDenied: Code.FORBIDDEN,
    exceptions.NotFound: Code.NOT_FOUND,
    exceptions.MethodNotAllowed: Code.METHOD_NOT_ALLOWED,
    exceptions.UnsupportedMediaType: Code.UNSUPPORTED_MEDIA_TYPE,
    exceptions.Throttled: Code.TOO_MANY_REQUESTS,
}


def _of_rest_framework(error: exceptions.APIException) -> Failure:
    if isinstance(error, exceptions.ValidationError):
        fields: dict[str, list[str]] = {}
        for name, problem in _flatten(error.detail, ""):
            fields.setdefault(name, []).append(problem)
        name, problems = next(iter(fields.items()))
        return Failure(400, Code.INVALID_REQUEST, f"{name}: {problems[0]}", fields)
    code = REST_FRAMEWORK_CODES.get(type(error), Code.INVALID_REQUEST)
    if isinstance(error, exceptions.NotAuthenticated):
        return Failure(error.status_code, code, NO_KEY)
    if isinstance(error, exceptions.ParseError):
        return Failure(400, code, str(error.detail), {"body": [str(error.detail)]})
    return Failure(error.status_code, code, str(error.detail))


def _flatten(detail: Any, path: str) -> Iterator[tuple[str, str]]:
    """Field paths and sentences: `history.1.role` for the role of the second turn."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            here = path if name == "non_field_errors" else f"{path}.{name}".lstrip(".")
            yield from _flatten(inner, here)
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            nested = isinstance(inner, Mapping | list)
            yield from _flatten(inner, f"{path}.{index}".lstrip(".") if nested else path)
    else:
        yield path or "body", str(detail)


def exception_handler(error: Exception, context: dict[str, Any]) -> JsonResponse | None:
    """REST framework's hook: every error of every view goes through here."""
    failure = failure_of(error)
    if failure is None:
        return None
    set_rollback()
    failure = failure.renamed(getattr(context["view"], "field_names", {}))
    path = context["request"].path
    headers = dict(failure.headers)
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if connection_of(context["request"]).closed:
        return as_response(failure, path, headers)  # nobody hears it
    return respond(failure, path, headers)
