"""OpenAI's routes: chat completions and models."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.http import StreamingHttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response as APIResponse
from rest_framework.views import APIView

from chat.errors import ModelNotFound
from chat.questions import Question
from chat.views.asking import answer, ask, asked_in, validated
from chat.wire import openai
from chat.wire.completion_requests import CompletionSerializer, LegacyCompletionSerializer
from chat.wire.streams import sse_response
from modelhost.host import host
from modelhost.types import ModelCard, Role

STARTED = int(time.time())


class ChatCompletions(APIView):
    """`POST /v1/chat/completions`, for unmodified OpenAI clients.

    field_names: what the body calls the fields that errors name.
    """

    field_names: Mapping[str, str] = {}

    @extend_schema(request=CompletionSerializer, responses={200: dict})
    def post(self, request: Request) -> APIResponse | StreamingHttpResponse:
        """Answer the last message; streaming or not."""
        legacy = isinstance(request.data, Mapping) and "prompt" in request.data
        body = validated(
            LegacyCompletionSerializer if legacy else CompletionSerializer, request.data
        )
        data = body.validated_data
        card = served_model(data.get("model"))
        if not legacy:
            self.field_names = body.names()
        question = _legacy_question(request, body) if legacy else _question(body)
        accepted = ask(request, question)
        created = int(accepted.prompt.created_at.timestamp())
        if data.get("stream"):
            options = data.get("stream_options") or {}
            chunks = openai.stream(
                accepted,
                model=card.name,
                created=created,
                include_usage=options.get("include_usage", False),
            )
            return sse_response(request, chunks, broken=openai.broken())
        outcome = answer(request, accepted)
        return APIResponse(openai.completion(accepted, outcome, model=card.name, created=created))


class Models(APIView):
    """`GET /v1/models`."""

    @extend_schema(operation_id="v1_models_list", responses={200: dict})
    def get(self, request: Request) -> APIResponse:
        """The one model served here."""
        card = host.engine().card
        return APIResponse({"object": "list", "data": [openai.model(card, created=STARTED)]})


class ModelDetail(APIView):
    """`GET /v1/models/{id}`; hub ids have a slash in them."""

    @extend_schema(responses={200: dict})
    def get(self, request: Request, name: str) -> APIResponse:
        """The model, under its own name or an alias."""
        return APIResponse(openai.model(served_model(name), created=STARTED))


def served_model(name: str | None) -> ModelCard:
    """The served model, if that is what the name means. Raises ModelNotFound."""
    card = host.engine().card
    known = {card.name, settings.LLMSITE_MODEL, *settings.LLMSITE_MODEL_ALIASES}
    if name is not None and name not in known:
        raise ModelNotFound(f"The model {name!r} is not served here; {card.name!r} is.")
    return card


def _question(body: Any) -> Question:
    data = body.validated_data
    *history, last = data["messages"]
    return Question(
        content=last.content,
        surface="completion",
        history=history,
        sampling=body.sampling_options(),
        client=data["client"],
        role=Role(last.role),
        tools=data.get("tools") or (),
        on_disconnect=data["on_disconnect"],
    )


def _legacy_question(request: Request, body: Any) -> Question:
    data = body.validated_data
    return Question(
        content=data["prompt"],
        surface="completion",
        conversation=asked_in(request, data.get("conversation")),
        history=data.get("history"),
        sampling=body.sampling_options(),
        on_disconnect=data["on_disconnect"],
    )
