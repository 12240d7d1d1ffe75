"""What every route that starts a generation shares: from a validated body to an answer."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404, StreamingHttpResponse
from rest_framework.request import Request
from rest_framework.response import Response as APIResponse

from chat import events, responses
from chat.models import ApiKey, Conversation
from chat.negotiation import wants_events
from chat.responses import Accepted, Question
from chat.streams import sse_response


def ask(request: Request, question: Question) -> Accepted:
    """Accept a question in the name of the caller."""
    api_key = request.auth if isinstance(request.auth, ApiKey) else None
    return responses.ask(question, user=request.user, api_key=api_key)


def own_conversation(request: Request, conversation_id: UUID | None) -> Conversation | None:
    """The caller's conversation with this id. Raises Http404 for anybody else's."""
    if conversation_id is None:
        return None
    row = Conversation.objects.for_user(request.user).filter(pk=conversation_id).first()
    if row is None:
        raise Http404
    return row


def deliver(
    request: Request, accepted: Accepted, *, stream: bool, status: int = 200
) -> APIResponse | StreamingHttpResponse:
    """The answer as the caller wants it: streamed, as one event, or as JSON."""
    if stream:
        return sse_response(events.stream(accepted.live))
    if wants_events(request):
        return sse_response(events.whole(accepted.live))
    responses.answer(accepted)
    return APIResponse(events.message(accepted), status=status)


def validated(serializer_class: type[Any], data: Any) -> Any:
    """A serializer over `data`, valid. Raises ValidationError."""
    serializer = serializer_class(data=data)
    serializer.is_valid(raise_exception=True)
    return serializer
