"""What drf-spectacular cannot see by itself. Imported once, when the app is ready."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import (
    OpenApiAuthenticationExtension,
    OpenApiSerializerFieldExtension,
)


class ApiKeyScheme(OpenApiAuthenticationExtension):
    """`Authorization: Bearer <key>`."""

    target_class = "chat.access.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer"}


class PromptFieldSchema(OpenApiSerializerFieldExtension):
    """A text with something in it."""

    target_class = "chat.wire.fields.PromptField"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": r"\S"}


class StopFieldSchema(OpenApiSerializerFieldExtension):
    """One text or several."""

    target_class = "chat.wire.fields.StopField"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        texts = {"type": "array", "items": {"type": "string"}}
        return {"oneOf": [{"type": "string"}, texts]}


class ContentFieldSchema(OpenApiSerializerFieldExtension):
    """A text or text parts."""

    target_class = "chat.wire.completion_messages.ContentField"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        parts = {"type": "array", "items": {"type": "object"}}
        return {"oneOf": [{"type": "string"}, parts]}
