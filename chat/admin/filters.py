"""Filters of the log."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import TextFilter


class ConversationFilter(TextFilter):
    """All responses of one conversation, by its id."""

    title = "conversation"
    parameter_name = "conversation"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """None at all for what is no id."""
        if not self.value():
            return queryset
        conversation_id = uuid_of(str(self.value()))
        if conversation_id is None:
            return queryset.none()
        return queryset.filter(prompt__conversation=conversation_id)


def uuid_of(text: str) -> UUID | None:
    """The id that a text spells, with or without hyphens."""
    try:
        return UUID(text.strip())
    except ValueError:
        return None
