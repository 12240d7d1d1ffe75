"""Serializer fields that take JSON at its word: a number is no text, a text no number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.settings import api_settings
from rest_framework.utils.serializer_helpers import BindingDict


class TextField(serializers.CharField):
    """A JSON string, kept exactly; surrounding space is the caller's business."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"trim_whitespace": False, **options})

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return data


LONGEST_KEY = 255  # characters
NOT_A_KEY = f"1 to {LONGEST_KEY} printable characters are required."


def is_key(text: str) -> bool:
    """Whether a request can be named so."""
    return 0 < len(text) <= LONGEST_KEY and text.isprintable()


class KeyField(TextField):
    """What `Idempotency-Key` says, where a client cannot set headers."""

    default_error_messages = {"key": NOT_A_KEY}

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"max_length": LONGEST_KEY, **options})

    def to_internal_value(self, data: Any) -> str:
        key = super().to_internal_value(data)
        if not is_key(key):
            self.fail("key")
        return key


class PromptField(TextField):
    """A text that says something."""

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, str) and not data.strip():
            self.fail("blank")
        return super().run_validation(data)


class IntegerField(serializers.IntegerField):
    """A JSON number without a fraction."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int | float) or data != data // 1:
            self.fail("invalid")
        return int(data)


class NumberField(serializers.FloatField):
    """A finite JSON number."""

    default_error_messages = {"finite": "A finite number is required."}

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        if isinstance(data, float) and not math.isfinite(data):
            self.fail("finite")
        try:
            return float(data)
        except OverflowError:
            self.fail("finite")


class QueryNumberField(serializers.FloatField):
    """A finite number in a query string."""

    def to_internal_value(self, data: Any) -> float:
        value = super().to_internal_value(data)
        if not math.isfinite(value):
            self.fail("invalid")
        return value


class IdField(serializers.UUIDField):
    """An id as text, with or without dashes."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class SwitchField(serializers.BooleanField):
    """A JSON true or false."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class StopField(serializers.Field):
    """One stop text or a list of them, as a tuple."""

    default_error_messages = {"invalid": "A text or a list of texts is required."}

    def to_internal_value(self, data: Any) -> tuple[str, ...]:
        texts = [data] if isinstance(data, str) else data
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            self.fail("invalid")
        return tuple(texts)

    def to_representation(self, value: tuple[str, ...]) -> list[str]:
        return list(value)


class ClosedSerializer(serializers.Serializer[Any]):
    """A serializer that refuses what it does not know, by name.

    Its fields are made once for each class, not for each body: they keep nothing of what they
    read, and copying them took longer than reading.
    """

    @property
    def fields(self) -> Any:
        return _fields(type(self))

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return super().to_internal_value(data)  # which refuses it
        problems = self.refusals(data)
        try:
            value = super().to_internal_value(data)
        except ValidationError as error:
            problems = {**fields_of(error), **problems}
        if problems:
            raise ValidationError(problems)
        return value

    def refusals(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """What is wrong with fields that are none of this serializer's."""
        return {str(name): ["Unknown field."] for name in data if name not in self.fields}


def fields_of(error: ValidationError) -> Mapping[str, Any]:
    """What is wrong with the fields of an object."""
    detail = error.detail
    return detail if isinstance(detail, Mapping) else {api_settings.NON_FIELD_ERRORS_KEY: detail}


@cache
def _fields(serializer: type[ClosedSerializer]) -> Any:
    pattern = serializer()
    made = BindingDict(pattern)
    for name, field in pattern.get_fields().items():
        made[name] = field
    return made
