"""What a WebSocket message leads to: a reply, and perhaps a response to follow.

All of it is synchronous, for a thread; `chat.websocket.consumers` is the asynchronous side.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from chat import acceptance, responses
from chat.access.callers import Caller
from chat.access.ownership import own_conversation, own_response
from chat.connections import Connection
from chat.errors import failure_of
from chat.failures import UNFORESEEN, Code, Failure
from chat.idempotency import HEADER, Attempt, digest
from chat.lifecycle.live import LiveResponse
from chat.limits.readers import TooManyStreams
from chat.monitoring import metrics
from chat.questions import Question
from chat.websocket.handshake import identify
from chat.websocket.socket_requests import name_of, validated
from chat.wire.parsers import parsed, refuse_unstorable

PATH = "/ws/chat"
# They name a message, and are no part of what is asked.
OWN_FIELDS = ("type", "id", "idempotency_key")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """The first message back. live: what is to be followed behind the cursor `after`."""

    message: dict[str, Any]
    live: LiveResponse | None = None
    after: int = 0
    omitted: Sequence[str] = ()


def reply_to(
    text: str, scope: MutableMapping[str, Any], connection: Connection, full: bool = False
) -> Reply:
    """Do what a message asks for, in the name of whoever sent the handshake.

    connection: of this message; when it closes, one client less waits for the response.
    full: nothing more can be followed.
    """
    name = None
    try:
        message = parsed(text)
        name = name_of(message)
        refuse_unstorable(message)
        caller = identify(scope)
        body = validated(message)
        if full and message["type"] in STREAMED:
            raise TooManyStreams("This socket follows as many responses as one may.")
        return HANDLERS[message["type"]](message, body, caller, connection)
    except Exception as error:  # noqa: BLE001  whatever it is, the client hears of it
        return Reply(refused(error, name))


def refused(error: Exception, name: str | None = None) -> dict[str, Any]:
    """Why nothing came of a message; what nobody foresaw is logged."""
    failure = failure_of(error)
    if failure is None:
        logger.error("a message of a WebSocket failed", exc_info=error)
        failure = Failure(500, Code.INTERNAL_ERROR, UNFORESEEN)
    failure = failure.renamed({HEADER: "idempotency_key"})
    metrics.refused(failure.code)
    return {
        "type": "refused",
        "id": name,
        "status": failure.status,
        "code": failure.code,
        "detail": failure.message,
        "errors": dict(failure.fields),
        "retry_after": failure.retry_after,
    }


def ask(message: dict[str, Any], body: Any, caller: Caller, connection: Connection) -> Reply:
    """Store a prompt and have it answered."""
    data = body.validated_data
    asked = {field: value for field, value in message.items() if field not in OWN_FIELDS}
    attempt = Attempt(
        caller.user, caller.api_key, digest(PATH, asked), data.get("idempotency_key") or ""
    )
    conversation = data.get("conversation")
    question = Question(
        content=data["prompt"],
        surface="websocket",
        conversation=conversation and own_conversation(caller.user, conversation),
        history=data.get("history"),
        sampling=body.sampling_options(),
        on_disconnect=data["on_disconnect"],
    )
    accepted = acceptance.accept(question, attempt)
    responses.wait_for(accepted.live, connection)
    told = accepted_message(message, accepted.live, accepted.prompt.conversation_id)
    return Reply(told, accepted.live, omitted=accepted.omitted)


def follow(message: dict[str, Any], body: Any, caller: Caller, connection: Connection) -> Reply:
    """Read a response from a cursor on, wherever it is being made, or was."""
    response = own_response(caller.user, body.validated_data["message_id"])
    live = responses.follow(response)
    responses.wait_for(live, connection)
    told = accepted_message(message, live, response.prompt.conversation_id)
    return Reply(told, live, body.validated_data["after"], response.omitted)


def stop(message: dict[str, Any], body: Any, caller: Caller, connection: Connection) -> Reply:
    """End a response; whoever follows it reads its end."""
    response = own_response(caller.user, body.validated_data["message_id"])
    responses.stop(response)
    return Reply({"type": "stopping", "id": name_of(message), "message_id": response.pk.hex})


def ping(message: dict[str, Any], body: Any, caller: Caller, connection: Connection) -> Reply:
    """Whether somebody is there."""
    return Reply({"type": "pong", "id": name_of(message)})


HANDLERS: dict[str, Callable[[dict[str, Any], Any, Caller, Connection], Reply]] = {
    "ask": ask,
    "follow": follow,
    "stop": stop,
    "ping": ping,
}


STREAMED = ("ask", "follow")


def accepted_message(
    message: dict[str, Any], live: LiveResponse, conversation: Any
) -> dict[str, Any]:
    """That it is under way, and under which ids."""
    return {
        "type": "accepted",
        "id": name_of(message),
        "message_id": live.id.hex,
        "conversation": str(conversation),
    }
