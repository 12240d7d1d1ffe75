"""The messages and tools in the body of a chat completion, as turns and functions."""

from __future__ import annotations

import json
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from chat.wire.fields import ClosedSerializer, IntegerField, SwitchField, TextField
from chat.wire.parsers import unstorable_numbers, unstorable_parts
from modelhost.types import Role, Tool, ToolCall, Turn

ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,  # the newer name of the same thing
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
}


class ContentField(serializers.Field):
    """A message's text: a string, or a list of text parts."""

    default_error_messages = {
        "invalid": "A text or a list of text parts is required.",
        "part": "Only parts of type text are served.",
    }

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, str):
            return data
        if not isinstance(data, list):
            self.fail("invalid")
        return "".join(self._part(part) for part in data)

    def _part(self, part: Any) -> str:
        if not isinstance(part, dict) or part.get("type") != "text":
            self.fail("part")
        text = part.get("text")
        if not isinstance(text, str):
            self.fail("invalid")
        return text

    def to_representation(self, value: str) -> str:
        return value


class KeptField(serializers.JSONField):
    """What a client keeps of an answer beside the text, and sends back with it.

    It says once more what is said, or nothing: the model is not shown it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"required": False, "allow_null": True, **options})


class CalledFunction(ClosedSerializer):
    """What was called; the arguments are JSON in a text.

    parsed_arguments: of the official clients' `stream()` and `parse()`.
    """

    name = TextField()
    arguments = TextField(allow_blank=True)
    parsed_arguments = KeptField()

    def validate_arguments(self, value: str) -> dict[str, Any]:
        """An object of arguments. Raises ValidationError."""
        try:
            arguments = json.loads(value or "{}")
        except (ValueError, RecursionError):
            raise ValidationError("This is not JSON.") from None
        if not isinstance(arguments, dict):
            raise ValidationError("A JSON object is required.")
        for path, problem in unstorable_parts(arguments):
            raise ValidationError({path: [problem]})
        if refusal := unstorable_numbers(arguments):
            raise ValidationError(refusal)
        return arguments


class ToolCallField(ClosedSerializer):
    """One call of an assistant's message. Its id only matters to the client."""

    id = TextField(required=False)
    type = serializers.ChoiceField(choices=["function"], required=False)
    index = IntegerField(required=False)
    function = CalledFunction()

    def to_internal_value(self, data: Any) -> ToolCall:
        called = super().to_internal_value(data)["function"]
        return ToolCall(called["name"], called["arguments"])


class FunctionField(ClosedSerializer):
    """A function that the model may call; `strict` decoding is not done."""

    name = serializers.RegexField(r"^[a-zA-Z0-9_-]{1,64}$")
    description = TextField(required=False, allow_blank=True)
    parameters = serializers.DictField(required=False)
    strict = SwitchField(required=False, allow_null=True)

    def validate_parameters(self, value: dict[str, Any]) -> dict[str, Any]:
        """A schema that can be kept. Raises ValidationError."""
        if problem := unstorable_numbers(value):
            raise ValidationError(problem)
        return value

    def validate_strict(self, value: bool | None) -> bool | None:
        """Answers are not forced into a schema."""
        if value:
            raise ValidationError(
                "Only false is served: no answer is forced into a schema. Turn strict tools off."
            )
        return value


class ToolField(ClosedSerializer):
    """One tool."""

    type = serializers.ChoiceField(choices=["function"])
    function = FunctionField()

    def to_internal_value(self, data: Any) -> Tool:
        function = super().to_internal_value(data)["function"]
        return {name: value for name, value in function.items() if name != "strict"}


class MessageField(ClosedSerializer):
    """One message. `audio` and `function_call` are taken when they are null.

    name, refusal: the model is not shown them. parsed: of the official clients' `stream()` and
    `parse()`. provider_specific_fields: LiteLLM's, of every answer.
    """

    role = serializers.ChoiceField(choices=list(ROLES))
    content = ContentField(required=False, allow_null=True)
    tool_call_id = TextField(required=False, allow_null=True)
    name = TextField(required=False, allow_null=True, allow_blank=True)
    refusal = TextField(required=False, allow_null=True)
    annotations = serializers.ListField(required=False, allow_null=True, max_length=0)
    tool_calls = ToolCallField(many=True, required=False, allow_null=True)
    audio = serializers.JSONField(required=False, allow_null=True)
    function_call = serializers.JSONField(required=False, allow_null=True)
    parsed = KeptField()
    provider_specific_fields = KeptField()

    def to_internal_value(self, data: Any) -> Turn:
        values = super().to_internal_value(data)
        for name in ("audio", "function_call"):
            if values.get(name) is not None:
                raise ValidationError({name: ["This is not served."]})
        calls = tuple(values.get("tool_calls") or ())
        if calls and values["role"] != "assistant":
            raise ValidationError({"tool_calls": ["Only the assistant makes calls."]})
        content = values.get("content")
        if content is None and not calls:
            raise ValidationError({"content": ["This field is required."]})
        return Turn(ROLES[values["role"]], content or "", tool_calls=calls)
