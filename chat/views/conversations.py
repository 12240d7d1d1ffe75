"""REST over the rows: conversations and the prompts inside them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404, StreamingHttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import generics, mixins
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response as APIResponse

from chat import responses
from chat.access.ownership import own_conversation
from chat.conversations import personas
from chat.conversations.history import Place, place_behind
from chat.errors import ConversationBusy
from chat.limits import storage
from chat.models import Conversation, Prompt, Response
from chat.questions import Question
from chat.views.asking import ask, deliver, validated
from chat.wire.filters import ConversationFilter, refuse_unknown, searching
from chat.wire.pagination import NewestFirst
from chat.wire.representations import (
    AnswerSerializer,
    ConversationRowSerializer,
    ConversationTreeSerializer,
    PromptRowSerializer,
)
from chat.wire.requests import BranchSerializer, ConversationSerializer, PathSerializer

NO_ANSWER = "This is no answer in this conversation."


class OwnConversations(generics.GenericAPIView[Conversation]):
    """Only the caller's conversations exist here."""

    serializer_class = ConversationRowSerializer
    pagination_class = NewestFirst
    queryset = Conversation.objects.none()

    def get_queryset(self) -> Any:
        """Own rows only."""
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        return Conversation.objects.for_user(self.request.user)


class Conversations(mixins.ListModelMixin, OwnConversations):
    """List and create."""

    filterset_class = ConversationFilter

    def get(self, request: Request) -> APIResponse:
        """The caller's conversations, newest first."""
        refuse_unknown(request.query_params, *ConversationFilter.base_filters)
        with searching(request):
            return self.list(request)

    @extend_schema(request=ConversationSerializer, responses={201: ConversationRowSerializer})
    def post(self, request: Request) -> APIResponse:
        """An empty conversation; `system` is its persona."""
        data = validated(ConversationSerializer, request.data).validated_data
        storage.check()
        row = Conversation.objects.begin(
            user=request.user, title=data.get("title", ""), system=data.get("system", "")
        )
        return APIResponse(ConversationRowSerializer(row).data, status=201)


class ConversationDetail(OwnConversations):
    """Read, change and delete one."""

    @extend_schema(parameters=[PathSerializer], responses=ConversationTreeSerializer)
    def get(self, request: Request, pk: UUID) -> APIResponse:
        """One conversation with its tree and a path: to `response`, or to the newest."""
        refuse_unknown(request.query_params, "response")
        query = validated(PathSerializer, request.query_params.dict()).validated_data
        conversation = self.get_object()
        leaf = None
        if "response" in query:
            leaf = answer_in(conversation, query["response"], "response")
        return APIResponse(ConversationTreeSerializer(conversation, context={"leaf": leaf}).data)

    @extend_schema(request=ConversationSerializer, responses=ConversationRowSerializer)
    def patch(self, request: Request, pk: UUID) -> APIResponse:
        """Rename it, or give it another persona for what comes."""
        conversation = self.get_object()
        data = validated(ConversationSerializer, request.data).validated_data
        if not personas.change(conversation, **data):
            raise Http404  # it was deleted meanwhile
        return APIResponse(ConversationRowSerializer(self.get_object()).data)

    def delete(self, request: Request, pk: UUID) -> APIResponse:
        """Remove it with everything in it; a response under way is cancelled."""
        responses.remove(self.get_object())
        return APIResponse(status=204)


class Prompts(generics.GenericAPIView[Prompt]):
    """The prompts of one conversation."""

    serializer_class = PromptRowSerializer
    pagination_class = NewestFirst
    queryset = Prompt.objects.none()

    @extend_schema(responses=PromptRowSerializer(many=True))
    def get(self, request: Request, pk: UUID) -> APIResponse:
        """Prompts with their responses, newest first."""
        refuse_unknown(request.query_params)
        conversation = own_conversation(request.user, pk)
        rows = Prompt.objects.filter(conversation=conversation).prefetch_related("responses")
        page = self.paginate_queryset(rows)
        return self.get_paginated_response(PromptRowSerializer(page, many=True).data)

    @extend_schema(request=BranchSerializer, responses={201: AnswerSerializer})
    def post(self, request: Request, pk: UUID) -> APIResponse | StreamingHttpResponse:
        """Ask inside the conversation: the server knows its history.

        With `follows` the prompt becomes a sibling of what follows that response already.
        """
        body = validated(BranchSerializer, request.data)
        data = body.validated_data
        conversation = own_conversation(request.user, pk)
        place = place_in(conversation, data["follows"]) if "follows" in data else None
        question = Question(
            content=data["prompt"],
            surface="conversation",
            conversation=conversation,
            place=place,
            sampling=body.sampling_options(),
            on_disconnect=data["on_disconnect"],
        )
        return deliver(request, ask(request, question), stream=data["stream"], status=201)


def place_in(conversation: Conversation, follows: UUID | None) -> Place:
    """Behind this response of the conversation; None is its beginning.

    Raises ValidationError when there is none such, ConversationBusy while it is unfinished.
    """
    if follows is None:
        return place_behind(None, conversation)
    row = answer_in(conversation, follows, "follows")
    if row.status == Response.Status.FAILED:
        raise ValidationError({"follows": [NO_ANSWER]})
    if row.active:
        raise ConversationBusy("The response to follow is still being generated.")
    return place_behind(row, conversation)


def answer_in(conversation: Conversation, pk: UUID, field: str) -> Response:
    """A response of the conversation. Raises ValidationError about `field` without one."""
    rows = Response.objects.select_related("prompt")
    row = rows.filter(pk=pk, prompt__conversation=conversation).first()
    if row is None:
        raise ValidationError({field: [NO_ANSWER]})
    return row
