"""Prompts: what a caller said, and behind which response.

So asking again or editing makes siblings, and nothing is overwritten.
"""

from __future__ import annotations

import uuid
from typing import Any, Self

from django.db import models
from django.utils import timezone

from chat.models.response import shorten
from modelhost.types import Role, Turn


class PromptQuerySet(models.QuerySet["Prompt"]):
    """Sets of prompts."""

    def for_user(self, user: Any) -> Self:
        """The only way from a request to rows: what is not in here does not exist for the user."""
        return self.filter(conversation__user=user)


class Prompt(models.Model):
    """One user turn.

    role: who says it: the user, or a tool whose result it is.
    earlier: turns as JSON that a client sent between the followed response and this
    turn and that are no answers of ours; nearly always empty.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(
        "Conversation", on_delete=models.CASCADE, related_name="prompts"
    )
    follows = models.ForeignKey(
        "Response", null=True, blank=True, on_delete=models.CASCADE, related_name="followed_by"
    )
    role = models.CharField(max_length=12, default=Role.USER)
    content = models.TextField()
    earlier = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = PromptQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return shorten(self.content)

    def turns(self) -> list[Turn]:
        """What this prompt adds to the conversation. A tool may have had nothing to say."""
        said = [Turn.from_json(turn) for turn in self.earlier]
        spoken = self.content or self.role == Role.TOOL
        return [*said, Turn(self.role, self.content)] if spoken else said
