"""The body of `POST /v1/chat/completions`: every field of the official client is decided.

Done: it changes the answer. Recorded: it is stored with the response. Neutral: only
the value that asks for nothing is taken, anything else is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from chat.models import Response
from chat.questions import SamplingOptions
from chat.wire.completion_messages import MessageField, ToolField
from chat.wire.fields import (
    ClosedSerializer,
    IntegerField,
    PartedList,
    SwitchField,
    TextField,
    fields_of,
)
from chat.wire.parsers import unstorable_numbers
from chat.wire.requests import (
    INT32,
    MAX_TURNS,
    MessageSerializer,
    OnDisconnectField,
    SamplingSerializer,
)
from modelhost.types import Role, Turn

RECORDED: Mapping[str, type[Any]] = {
    "user": str,
    "metadata": dict,
    "store": bool,
    "safety_identifier": str,
    "prompt_cache_key": str,
    "service_tier": str,
}

KINDS = {str: "string", dict: "object", bool: "boolean"}

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "prompt_cache_retention": (),
    "prompt_cache_options": (),
    "moderation": (),
}


class StreamOptions(ClosedSerializer):
    """What a stream carries besides text."""

    include_usage = SwitchField(required=False, default=False)
    include_obfuscation = SwitchField(required=False, default=False)

    def validate_include_obfuscation(self, value: bool) -> bool:
        """Padding against traffic analysis is not made here."""
        if value:
            raise ValidationError("This is not served.")
        return value


class CompletionSerializer(SamplingSerializer):
    """The fields that are done; the others are looked at before."""

    model = TextField(required=False)
    messages = PartedList(
        child=MessageField(),
        allow_empty=False,
        max_length=MAX_TURNS,
        error_messages={"max_length": f"At most {MAX_TURNS} messages are taken."},
    )
    max_completion_tokens = IntegerField(
        required=False, allow_null=True, min_value=1, max_value=INT32
    )
    stream = SwitchField(required=False, allow_null=True, default=False)
    stream_options = StreamOptions(required=False, allow_null=True)
    tools = ToolField(many=True, required=False, allow_null=True)
    on_disconnect = OnDisconnectField(default=Response.OnDisconnect.STOP)
    client = serializers.DictField(required=False, default=dict)

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return super().to_internal_value(data)  # which refuses it
        served = {name: data[name] for name in data if name not in (*NEUTRAL, *RECORDED)}
        if data.get("tool_choice") == "none":
            served.pop("tools", None)  # the caller does not want them used
        problems = {**_unserved(data), **_misfit(data)}
        if "client" in served:  # this serializer's own word for what is recorded
            problems["client"] = ["Unknown field."]
        served["client"] = {name: data[name] for name in RECORDED if data.get(name) is not None}
        try:
            value = super().to_internal_value(served)
        except ValidationError as error:
            raise ValidationError({**fields_of(error), **problems}) from None
        if problems:
            raise ValidationError(problems)
        return value

    def validate_messages(self, messages: list[Turn]) -> list[Turn]:
        """The conversation must be the assistant's turn to answer."""
        last = messages[-1]
        if last.role not in (Role.USER, Role.TOOL):
            raise ValidationError("The last message must have the role user or tool.")
        if last.role == Role.USER and not last.content.strip():  # a tool may have nothing to say
            raise ValidationError("The last message has no text.")
        return messages

    def names(self) -> dict[str, str]:
        """What this body calls the fields that later refusals name."""
        limit = "max_completion_tokens" in self.validated_data
        return {
            "prompt": "messages",
            "history": "messages",
            "max_tokens": "max_completion_tokens" if limit else "max_tokens",
        }

    def sampling_options(self) -> SamplingOptions:
        """Sampling; `max_completion_tokens` is the newer name of `max_tokens`."""
        options = super().sampling_options()
        limit = self.validated_data.get("max_completion_tokens")
        if limit is None:
            return options
        return replace(options, max_tokens=limit)


class LegacyCompletionSerializer(MessageSerializer):
    """The older body on the same route: `prompt` with `history`."""

    model = TextField(required=False)
    on_disconnect = OnDisconnectField(default=Response.OnDisconnect.STOP)


def _misfit(data: Mapping[str, Any]) -> dict[str, list[str]]:
    """What is to be recorded and cannot be."""
    return {
        name: [problem]
        for name, kind in RECORDED.items()
        if (problem := _unrecordable(data.get(name), kind))
    }


def _unrecordable(value: Any, kind: type[Any]) -> str | None:
    if value is None:
        return None
    if not isinstance(value, kind):
        return f"This must be of type {KINDS[kind]}."
    return unstorable_numbers(value)


def _unserved(data: Mapping[str, Any]) -> dict[str, list[str]]:
    """What asks for something that is not done here."""
    return {
        name: [f"Only {' or '.join(map(json.dumps, neutral)) or 'null'} is served."]
        for name, neutral in NEUTRAL.items()
        if data.get(name) is not None and not any(_same(data[name], one) for one in neutral)
    }


def _same(value: Any, other: Any) -> bool:
    """True == 1 in Python, and `"n": true` is not one answer."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)
