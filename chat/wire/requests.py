"""What callers may send, as serializers: one per body, each field decided."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from chat.models import Response
from chat.models.conversation import TITLE_LENGTH
from chat.questions import SamplingOptions
from chat.wire.fields import (
    ClosedSerializer,
    IdField,
    IntegerField,
    KeyField,
    NumberField,
    PromptField,
    QueryNumberField,
    StopField,
    SwitchField,
    TextField,
)
from modelhost.types import Role, Turn

SEED: dict[str, Any] = {"min_value": -(1 << 63), "max_value": (1 << 63) - 1}
ROLES = [Role.SYSTEM.value, Role.USER.value, Role.ASSISTANT.value]
INT32 = (1 << 31) - 1
MAX_TURNS = 1000  # of a resent history; far beyond any context, and bounded work


class TurnSerializer(ClosedSerializer):
    """One turn of a history that the caller resends."""

    role = serializers.ChoiceField(choices=ROLES)
    content = TextField(allow_blank=True)
    metadata = TextField(allow_blank=True, required=False, default="")

    def validate_metadata(self, value: str) -> str:
        """ChatGLM3's blank line; calls and results go through /v1."""
        if value.strip():
            raise serializers.ValidationError("Only empty metadata is served here.")
        return ""

    def to_internal_value(self, data: Any) -> Turn:
        return Turn(**super().to_internal_value(data))


class OnDisconnectField(serializers.ChoiceField):
    """Whether a response goes on when everybody who waited for it has left."""

    def __init__(self, **options: Any) -> None:
        super().__init__(choices=Response.OnDisconnect.choices, **options)

    def to_internal_value(self, data: Any) -> Response.OnDisconnect:
        return Response.OnDisconnect(super().to_internal_value(data))


class CursorSerializer(serializers.Serializer[Any]):
    """The query of an event stream: how many characters of the text the reader has."""

    after = serializers.IntegerField(required=False, default=0, min_value=0, max_value=INT32)


class SamplingSerializer(ClosedSerializer):
    """How to sample; what is left out is the installation's default."""

    max_tokens = IntegerField(required=False, allow_null=True, min_value=1, max_value=INT32)
    temperature = NumberField(required=False, allow_null=True, min_value=0, max_value=2)
    top_p = NumberField(required=False, allow_null=True, min_value=0, max_value=1)
    top_k = IntegerField(required=False, allow_null=True, min_value=0, max_value=INT32)
    seed = IntegerField(required=False, allow_null=True, **SEED)
    stop = StopField(required=False, allow_null=True)

    def sampling_options(self) -> SamplingOptions:
        """The sampling part of the validated body."""
        names = ("max_tokens", "temperature", "top_p", "top_k", "seed")
        values = {name: self.validated_data.get(name) for name in names}
        return SamplingOptions(**values, stop=self.validated_data.get("stop") or ())


class PromptSerializer(SamplingSerializer):
    """A prompt and how it is answered."""

    prompt = PromptField()
    stream = SwitchField(required=False, default=False)
    on_disconnect = OnDisconnectField(default=Response.OnDisconnect.FINISH)


class BranchSerializer(PromptSerializer):
    """A prompt inside a conversation: behind its newest answer, or where the caller says.

    follows: a response; null is the conversation's beginning.
    """

    follows = IdField(required=False, allow_null=True)


class RegenerateSerializer(SamplingSerializer):
    """One more response to a prompt."""

    stream = SwitchField(required=False, default=False)
    on_disconnect = OnDisconnectField(default=Response.OnDisconnect.FINISH)


class MessageSerializer(PromptSerializer):
    """The body of `POST /chat/new/message/`."""

    # Not many=True, which would allow null for each turn as well.
    history: serializers.ListSerializer[Any] = serializers.ListSerializer(
        child=TurnSerializer(), required=False, allow_null=True, max_length=MAX_TURNS
    )
    conversation = IdField(required=False, allow_null=True)


class SendMessageSerializer(ClosedSerializer):
    """The query of `GET /sendMessage`: everything is text there."""

    prompt = PromptField()
    conversation = serializers.UUIDField(required=False)
    max_tokens = serializers.IntegerField(required=False, min_value=1, max_value=INT32)
    temperature = QueryNumberField(required=False, min_value=0, max_value=2)
    top_p = QueryNumberField(required=False, min_value=0, max_value=1)
    seed = serializers.IntegerField(required=False, **SEED)
    on_disconnect = OnDisconnectField(default=Response.OnDisconnect.FINISH)
    idempotency_key = KeyField(required=False)

    def sampling_options(self) -> SamplingOptions:
        """The sampling part of the query."""
        names = ("max_tokens", "temperature", "top_p", "seed")
        return SamplingOptions(**{name: self.validated_data.get(name) for name in names})


class ConversationSerializer(ClosedSerializer):
    """The body that creates or changes a conversation."""

    title = TextField(required=False, allow_blank=True, max_length=TITLE_LENGTH)
    system = TextField(required=False, allow_blank=True, max_length=100_000)


class PathSerializer(serializers.Serializer[Any]):
    """The query of one conversation: the response that its path shall lead to."""

    response = serializers.UUIDField(required=False)
