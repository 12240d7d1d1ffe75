"""Conversations: trees of prompts and the responses to them."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.utils import timezone

from chat.models.response import Response
from chat.statements import insert

TITLE_LENGTH = 120


class ConversationQuerySet(models.QuerySet["Conversation"]):
    """Sets of conversations."""

    def for_user(self, user: Any) -> Self:
        """The only way from a request to rows: what is not in here does not exist for the user."""
        return self.filter(user=user)

    def begin(self, *, user: Any, title: str, system: str) -> Conversation:
        """A new conversation; without a persona of its own it keeps the installation's."""
        row = self.model(user=user, title=title, system=system or settings.LLMSITE_SYSTEM)
        insert(row)
        return row


class Conversation(models.Model):
    """A tree of prompts and responses that belongs to one user.

    system: the persona, "you are X, made by Y"; empty means none.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="conversations"
    )
    title = models.CharField(max_length=TITLE_LENGTH, blank=True)
    system = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(fields=["user", "-created_at"]),
            models.Index(fields=["-created_at"]),
        ]

    def __str__(self) -> str:
        return self.title or f"Conversation of {self.created_at:%Y-%m-%d %H:%M}"

    def latest_readable_response(self) -> Response | None:
        """The response that the next prompt follows when the caller names none."""
        return (
            Response.objects.filter(prompt__conversation=self, status__in=Response.READABLE)
            .order_by("-created_at")
            .first()
        )

    def newest_response(self) -> Response | None:
        """The end of the current path."""
        rows = Response.objects.filter(prompt__conversation=self).select_related("prompt")
        return rows.order_by("-created_at").first()

    def next_moment(self) -> datetime:
        """Now, or right behind its newest response if the clock was set back: what comes later
        must be newer. It holds for whoever has locked the row."""
        rows = Response.objects.filter(prompt__conversation=self)
        # Not the first in order: that may be looked for in everybody's responses.
        newest = rows.aggregate(newest=models.Max("created_at"))["newest"]
        now = timezone.now()
        return now if newest is None else max(now, newest + timedelta(microseconds=1))

    def answering(self) -> bool:
        """Whether a response of this conversation is being generated now."""
        return Response.objects.filter(
            prompt__conversation=self, status__in=Response.ACTIVE
        ).exists()
