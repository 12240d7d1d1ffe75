"""The routes that the tutorial's clients know: new message, messages, sendMessage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response as APIResponse
from rest_framework.views import APIView

from chat.idempotency import HEADER
from chat.models import ApiKey, Response
from chat.questions import Question
from chat.views.asking import Stream, ask, asked_in, deliver, resumed, validated
from chat.wire.filters import ResponseFilter, refuse_unknown, searching
from chat.wire.negotiation import EVENT_STREAM, wants_events
from chat.wire.pagination import NewestFirst
from chat.wire.representations import AnswerSerializer, LoggedMessageSerializer
from chat.wire.requests import MessageSerializer, SendMessageSerializer

EVENTS = OpenApiResponse(
    OpenApiTypes.STR, description="`accepted`, pieces of text, then `done` or `error`"
)


class NewMessage(APIView):
    """Ask, and be answered in JSON or as a stream."""

    @extend_schema(request=MessageSerializer, responses={200: AnswerSerializer, 204: None})
    def post(self, request: Request) -> APIResponse | Stream:
        """Start a response to `prompt`, after `history` or inside `conversation`.

        With `Last-Event-ID` go on with one instead.
        """
        if (stream := resumed(request)) is not None:
            return stream
        body = validated(MessageSerializer, request.data)
        data = body.validated_data
        question = Question(
            content=data["prompt"],
            surface="message",
            conversation=asked_in(request, data.get("conversation")),
            history=data.get("history"),
            sampling=body.sampling_options(),
            on_disconnect=data["on_disconnect"],
        )
        return deliver(request, ask(request, question), stream=data["stream"])


class Messages(generics.ListAPIView[Response]):
    """The caller's prompts and responses, newest first."""

    serializer_class = LoggedMessageSerializer
    pagination_class = NewestFirst
    filterset_class = ResponseFilter
    queryset = Response.objects.none()

    def list(self, request: Request, *args: Any, **kwargs: Any) -> APIResponse:
        """A page of them."""
        with searching(request):
            return super().list(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        """Own rows only."""
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        refuse_unknown(self.request.query_params, *ResponseFilter.base_filters)
        rows = Response.objects.for_user(self.request.user).defer("token_ids")
        return rows.select_related("prompt")


class SendMessage(APIView):
    """The stream for a browser's EventSource, which can only GET.

    field_names: what the query calls the fields that errors name.
    """

    field_names: Mapping[str, str] = {}
    http_method_names = ["get", "options"]  # a HEAD would start work and throw it away

    @extend_schema(
        parameters=[SendMessageSerializer],
        responses={(200, EVENT_STREAM): EVENTS, 204: None},
    )
    def get(self, request: Request) -> Stream:
        """Start a response to `prompt`; with `Last-Event-ID` go on with one instead.

        With an `idempotency_key` of before join the one that was started under it.
        """
        refuse_foreign_pages(request)
        if (stream := resumed(request)) is not None:
            return stream
        refuse_damaged(request.META["QUERY_STRING"])
        query = validated(SendMessageSerializer, request.query_params.dict())
        data = query.validated_data
        if HEADER not in request.headers:
            self.field_names = {HEADER: "idempotency_key"}
        question = Question(
            content=data["prompt"],
            surface="sendMessage",
            conversation=asked_in(request, data.get("conversation")),
            sampling=query.sampling_options(),
            on_disconnect=data["on_disconnect"],
        )
        accepted = ask(request, question, key=data.get("idempotency_key", ""))
        return deliver(request, accepted, stream=True)


def refuse_foreign_pages(request: Request) -> None:
    """This GET starts work, so only our own pages and programs may send it.

    Pages of LLMSITE_CORS_ORIGINS are programs when they come with a key. Fetch Metadata (W3C)
    tells navigations and other sites apart; where a browser sends none, Origin and Referer must
    be ours. Raises PermissionDenied.
    """
    headers = request.headers
    if isinstance(request.auth, ApiKey) and may_call(headers.get("Origin")):
        return
    if headers.get("Sec-Fetch-Mode") == "navigate":
        raise PermissionDenied("This address is for EventSource, not for navigation.")
    if headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise PermissionDenied("Other sites may not start a response here.")
    if headers.get("Sec-Fetch-Dest", "empty") != "empty":
        raise PermissionDenied("This address is for EventSource, not for embedding.")
    told = any(headers.get(name) for name in ("Sec-Fetch-Site", "Origin", "Referer"))
    if not told and not isinstance(request.auth, ApiKey) and not wants_events(request):
        # Over plain HTTP browsers send no Fetch Metadata, but no navigation asks for events.
        raise PermissionDenied("This address is for EventSource, not for navigation.")
    for name in ("Origin", "Referer"):
        source = headers.get(name)
        if source and host_of(source) != request.get_host():
            raise PermissionDenied("Other sites may not start a response here.")


def refuse_damaged(query: str) -> None:
    """A query whose bytes are not UTF-8: Django reads them as U+FFFD. Raises ValidationError."""
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        raise ValidationError({"query": ["The address is not UTF-8."]}) from None


def may_call(origin: str | None) -> bool:
    """Whether pages of this other origin may call the API."""
    return bool(origin) and (
        settings.CORS_ALLOW_ALL_ORIGINS or origin in settings.CORS_ALLOWED_ORIGINS
    )


def host_of(address: str) -> str:
    """Host and port in an address; of a malformed one, nothing."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""
