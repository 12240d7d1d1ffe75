"""What may be said through a WebSocket: a serializer for each type of message."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from chat.wire.fields import ClosedSerializer, IdField, IntegerField, KeyField, TextField
from chat.wire.parsers import unstorable
from chat.wire.requests import INT32, MessageSerializer

LONGEST_ID = 100  # characters


class SocketSerializer(ClosedSerializer):
    """What every message has. id: whatever the client calls it; the reply says it again."""

    type = TextField()
    id = TextField(required=False, allow_null=True, allow_blank=True, max_length=LONGEST_ID)


class AskSerializer(SocketSerializer, MessageSerializer):
    """A prompt, as for `POST /chat/new/message/`; it is always streamed."""

    stream = None  # type: ignore[assignment]
    idempotency_key = KeyField(required=False, allow_null=True)


class FollowSerializer(SocketSerializer):
    """A response to read from a cursor on."""

    message_id = IdField()
    after = IntegerField(default=0, min_value=0, max_value=INT32)


class StopSerializer(SocketSerializer):
    """A response to end."""

    message_id = IdField()


TYPES: dict[str, type[SocketSerializer]] = {
    "ask": AskSerializer,
    "follow": FollowSerializer,
    "stop": StopSerializer,
    "ping": SocketSerializer,
}


def validated(message: Any) -> serializers.Serializer[Any]:
    """The serializer for this message, valid. Raises ValidationError."""
    if not isinstance(message, dict):
        raise ValidationError({"body": ["A JSON object is required."]})
    if message.get("type") not in list(TYPES):
        raise ValidationError({"type": [f"One of {', '.join(TYPES)} is required."]})
    serializer = TYPES[message["type"]](data=message)
    serializer.is_valid(raise_exception=True)
    return serializer


def name_of(message: Any) -> str | None:
    """What the client calls a message, also one that is refused for something else."""
    name = message.get("id") if isinstance(message, dict) else None
    if not isinstance(name, str) or len(name) > LONGEST_ID or unstorable(name):
        return None
    return name
