"""A failed request, and the two shapes that say so: problem details (RFC 9457), OpenAI's object.

Every code that a caller can see stands in `Code` and in docs/errors.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from django.http import JsonResponse

from chat.monitoring import metrics

PROBLEM_JSON = "application/problem+json"
OPENAI_PREFIX = "/v1/"
# Where OpenAI's clients ask that were given the server's address without /v1.
OPENAI_UNPREFIXED = frozenset({"/chat/completions", "/models", "/responses", "/completions"})
AS_RENDERED = {"separators": (",", ":"), "ensure_ascii": False}  # by REST framework
UNFORESEEN = "Something went wrong on the server; the log has the details."


class Code(StrEnum):
    """What went wrong, for programs."""

    INVALID_REQUEST = "invalid_request"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    NOT_AUTHENTICATED = "not_authenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    MODEL_NOT_FOUND = "model_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONVERSATION_BUSY = "conversation_busy"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    BODY_TIMEOUT = "body_timeout"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    TOO_MANY_REQUESTS = "too_many_requests"
    TOO_MANY_STREAMS = "too_many_streams"
    INTERNAL_ERROR = "internal_error"
    GENERATION_FAILED = "generation_failed"
    INSUFFICIENT_STORAGE = "insufficient_storage"
    SERVER_STOPPING = "server_stopping"
    DATABASE_UNAVAILABLE = "database_unavailable"
    MODEL_LOADING = "model_loading"
    MODEL_FAILED = "model_failed"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request. `fields` maps a field's path to what is wrong with it.

    message_id: of a response that was begun all the same, or had been.
    """

    status: int
    code: Code
    message: str
    fields: Mapping[str, list[str]] = field(default_factory=dict)
    retry_after: int | None = None
    message_id: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def renamed(self, names: Mapping[str, str]) -> Failure:
        """The same, with the fields as the caller's body calls them."""
        fields = {names.get(name, name): problems for name, problems in self.fields.items()}
        return replace(self, fields=fields)

    def as_problem(self) -> dict[str, Any]:
        """RFC 9457, with `code`, `errors` and `message_id` as extensions."""
        begun = {} if self.message_id is None else {"message_id": self.message_id}
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.message,
            "code": self.code.value,
            "errors": dict(self.fields),
            **begun,
        }

    def as_openai(self) -> dict[str, Any]:
        """The object that OpenAI's clients read."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == HTTPStatus.UNAUTHORIZED:
            kind = "authentication_error"
        elif self.status == HTTPStatus.TOO_MANY_REQUESTS:
            kind = "rate_limit_error"
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": next(iter(self.fields), None),
                "code": self.code.value,
            }
        }

    def body(self, path: str) -> dict[str, Any]:
        """The shape for the surface that `path` belongs to."""
        return self.as_openai() if is_of_openai(path) else self.as_problem()

    def content_type(self, path: str) -> str:
        return "application/json" if is_of_openai(path) else PROBLEM_JSON


def is_of_openai(path: str) -> bool:
    """Whether OpenAI's clients ask there, which read no other shape of error than theirs."""
    return path.startswith(OPENAI_PREFIX) or path in OPENAI_UNPREFIXED


def respond(failure: Failure, path: str, headers: Mapping[str, str] | None = None) -> JsonResponse:
    """A failure as an answer, and counted. headers: in place of its own."""
    metrics.refused(failure.code)
    return as_response(failure, path, failure.headers if headers is None else headers)


def as_response(failure: Failure, path: str, headers: Mapping[str, str]) -> JsonResponse:
    """JSON, whatever the view answers in."""
    return JsonResponse(
        failure.body(path),
        status=failure.status,
        headers=headers,
        content_type=failure.content_type(path),
        json_dumps_params=AS_RENDERED,
    )
