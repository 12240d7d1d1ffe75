"""What every route that starts a generation shares: from a validated body to an answer."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from django.http import Http404, HttpResponse, StreamingHttpResponse
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response as APIResponse

from chat import acceptance, responses
from chat.access.callers import as_get_request, authenticate, caller_of_request
from chat.access.ownership import own_conversation, own_response
from chat.connections import connection_of
from chat.idempotency import Attempt, attempt_of
from chat.lifecycle.live import Outcome
from chat.limits.readers import readers, take_place
from chat.models import Conversation, Response
from chat.questions import Accepted, Question
from chat.wire import events
from chat.wire.negotiation import wants_events
from chat.wire.streams import LOOK_AGAIN, sse_response

LAST_EVENT_ID = "Last-Event-ID"

Stream = StreamingHttpResponse | HttpResponse


def ask(request: Request, question: Question, *, key: str = "") -> Accepted:
    """Accept a question in the name of the caller, who from now on waits for its response.

    key: an idempotency key from the query, where there is no header.
    """
    take_place(request, readers)
    accepted = acceptance.accept(question, attempt(request, key=key))
    responses.wait_for(accepted.live, connection_of(request))
    return accepted


def attempt(request: Request, *, key: str = "") -> Attempt:
    """How this request names itself, so that its retry is recognised."""
    body = request.data if request.method == "POST" else request.query_params.dict()
    caller = caller_of_request(request)
    return attempt_of(
        request._request, user=caller.user, api_key=caller.api_key, body=body, key=key
    )


def answer(request: Request, accepted: Accepted) -> Outcome:
    """The outcome, waited for as long as the client does, and for those who still may know it.

    Raises AuthenticationFailed, NotAuthenticated when that took long and key or session are over.
    """
    connection, begun = connection_of(request), time.monotonic()
    outcome = responses.answer(accepted, gone=lambda: connection.closed)
    scope = getattr(request, "scope", None)
    if scope is not None and time.monotonic() - begun > LOOK_AGAIN:
        authenticate(as_get_request(scope))
    return outcome


def asked_in(request: Request, conversation_id: UUID | None) -> Conversation | None:
    """The caller's conversation that a body names, if it names one. Raises Http404."""
    return own_conversation(request.user, conversation_id) if conversation_id else None


def deliver(
    request: Request, accepted: Accepted, *, stream: bool, status: int = 200
) -> APIResponse | StreamingHttpResponse:
    """The answer as the caller wants it: streamed, as one event, or as JSON."""
    if stream or wants_events(request):
        made = events.stream if stream else events.whole
        conversation = accepted.prompt.conversation_id
        told = made(accepted.live, conversation=conversation, omitted=accepted.omitted)
        return sse_response(request, told, broken=events.broken(accepted.live.id))
    outcome = answer(request, accepted)
    return APIResponse(events.message(accepted, outcome), status=status)


def attach(request: Request, response: Response, after: int) -> Stream:
    """A response from this cursor on, and how it ended, also where no text is behind the cursor.

    204 instead of an end alone for whoever sends `Last-Event-ID`: an EventSource comes back with it
    by itself, also behind the end, and stays away only then. Programs that lost a stream right
    before its end name the cursor in their query: else they would take what broke off for whole.
    """
    if LAST_EVENT_ID in request.headers and events.is_at_end(response, after):
        return HttpResponse(status=204)
    take_place(request, readers)
    live = responses.follow(response)
    responses.wait_for(live, connection_of(request))
    conversation = response.prompt.conversation_id
    told = events.stream(live, after, conversation=conversation, omitted=response.omitted)
    return sse_response(request, told, broken=events.broken(live.id))


def resumed(request: Request) -> Stream | None:
    """The rest of the response that `Last-Event-ID` names; None without the header.

    EventSource and its like reconnect by themselves: that must never start the work again.
    """
    if LAST_EVENT_ID not in request.headers:
        return None
    parsed = events.parse_cursor(request.headers[LAST_EVENT_ID])
    if parsed is None:
        raise Http404
    response_id, after = parsed
    return attach(request, own_response(request.user, response_id), after)


def cursor_for(request: Request, response_id: UUID, after: int) -> int:
    """Where a follower of this response is: `Last-Event-ID`, else what its query says.

    Raises ValidationError for the id of another response.
    """
    if LAST_EVENT_ID not in request.headers:
        return after
    parsed = events.parse_cursor(request.headers[LAST_EVENT_ID])
    if parsed is None or parsed[0] != response_id:
        raise ValidationError({LAST_EVENT_ID: ["This is no event of this response."]})
    return parsed[1]


def validated(serializer_class: type[Any], data: Any) -> Any:
    """A serializer over `data`, valid. Raises ValidationError."""
    serializer = serializer_class(data=data)
    serializer.is_valid(raise_exception=True)
    return serializer
