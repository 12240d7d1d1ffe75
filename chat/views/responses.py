"""One response: read it, follow it, stop it, ask for another one to the same prompt."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response as APIResponse
from rest_framework.views import APIView

from chat import responses
from chat.access.ownership import own_prompt, own_response
from chat.conversations.history import place_again
from chat.models import Response
from chat.questions import Question
from chat.views.asking import Stream, ask, attach, cursor_for, deliver, validated
from chat.wire.filters import refuse_unknown
from chat.wire.negotiation import EVENT_STREAM
from chat.wire.representations import AnswerSerializer, ResponseRowSerializer
from chat.wire.requests import CursorSerializer, RegenerateSerializer
from modelhost.types import Role

EVENTS = OpenApiResponse(OpenApiTypes.STR, description="The text behind the cursor, then its end")


class ResponseDetail(generics.RetrieveAPIView[Response]):
    """One response with all its figures."""

    serializer_class = ResponseRowSerializer
    queryset = Response.objects.none()

    def get_queryset(self) -> Any:
        """Own rows only."""
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        rows = Response.objects.for_user(self.request.user)
        return rows.select_related("prompt__conversation", "api_key")


class ResponseEvents(APIView):
    """A response as a stream, to come back to at any time."""

    http_method_names = ["get", "options"]  # a HEAD would follow to the end and say nothing

    @extend_schema(
        parameters=[CursorSerializer], responses={(200, EVENT_STREAM): EVENTS, 204: None}
    )
    def get(self, request: Request, pk: UUID) -> Stream:
        """What is stored behind the cursor, what comes, how it ends.

        204 where `Last-Event-ID` says that all of the text was read, and no more will come.
        """
        refuse_unknown(request.query_params, "after")
        after = validated(CursorSerializer, request.query_params.dict()).validated_data["after"]
        response = own_response(request.user, pk)
        return attach(request, response, cursor_for(request, response.pk, after))


class ResponseStop(APIView):
    """The end of a response before its end."""

    @extend_schema(request=None, responses=ResponseRowSerializer)
    def post(self, request: Request, pk: UUID) -> APIResponse:
        """Stop it; its text so far stays. One that has ended is shown as it is."""
        response = own_response(request.user, pk)
        live = responses.follow(response)
        responses.stop(response)
        responses.settled(live)
        return APIResponse(ResponseRowSerializer(own_response(request.user, pk)).data)


class PromptResponses(APIView):
    """The responses to one prompt."""

    @extend_schema(request=RegenerateSerializer, responses={201: AnswerSerializer})
    def post(self, request: Request, pk: UUID) -> APIResponse | StreamingHttpResponse:
        """One more response to the same prompt, beside those that there are."""
        body = validated(RegenerateSerializer, request.data)
        data = body.validated_data
        prompt = own_prompt(request.user, pk)
        newest = prompt.responses.order_by("-created_at").first()
        question = Question(
            content=prompt.content,
            role=Role(prompt.role),
            surface="regenerate",
            conversation=prompt.conversation,
            place=place_again(prompt),
            tools=newest.tools if newest else (),
            sampling=body.sampling_options(),
            on_disconnect=data["on_disconnect"],
        )
        return deliver(request, ask(request, question), stream=data["stream"], status=201)
