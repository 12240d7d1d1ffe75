"""The record: conversations, their prompts, the responses to them, and the keys that ask.

A prompt is what a caller said; it points at the response that it follows, so
asking again or editing makes siblings and nothing is overwritten. A response is
one attempt to answer a prompt, kept with everything needed to judge or repeat it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.utils import timezone

from chat import keys
from modelhost.types import Role, ToolCall, Turn

TITLE_LENGTH = 120
INTERRUPTION = "The server stopped while it worked on this response."
KEY_USE_RESOLUTION = timedelta(minutes=1)


class ConversationQuerySet(models.QuerySet["Conversation"]):
    """Sets of conversations."""

    def for_user(self, user: Any) -> Self:
        """The only way from a request to rows: what is not in here does not exist for the user."""
        return self.filter(user=user)

    def begin(self, *, user: Any, title: str, system: str) -> Conversation:
        """A new conversation; without a persona of its own it keeps the installation's."""
        return self.create(user=user, title=title, system=system or settings.LLMSITE_SYSTEM)


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
        indexes = [models.Index(fields=["user", "-created_at"])]

    def __str__(self) -> str:
        return self.title or f"Conversation of {self.created_at:%Y-%m-%d %H:%M}"

    def latest_response(self) -> Response | None:
        """The response that the next prompt follows when the caller names none."""
        return (
            Response.objects.filter(prompt__conversation=self, status__in=Response.READABLE)
            .order_by("-created_at")
            .first()
        )

    def answering(self) -> bool:
        """Whether a response of this conversation is being generated now."""
        return Response.objects.filter(
            prompt__conversation=self, status__in=Response.ACTIVE
        ).exists()


class Prompt(models.Model):
    """One user turn.

    role: who says it: the user, or a tool whose result it is.
    earlier: turns as JSON that a client sent between the followed response and this
    turn and that are no answers of ours; nearly always empty.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="prompts")
    follows = models.ForeignKey(
        "Response", null=True, blank=True, on_delete=models.CASCADE, related_name="followed_by"
    )
    role = models.CharField(max_length=12, default=Role.USER)
    content = models.TextField()
    earlier = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return shorten(self.content)

    def turns(self) -> list[Turn]:
        """What this prompt adds to the conversation."""
        said = [Turn.from_json(turn) for turn in self.earlier]
        return [*said, Turn(self.role, self.content)] if self.content else said


class ResponseQuerySet(models.QuerySet["Response"]):
    """Sets of responses."""

    def for_user(self, user: Any) -> Self:
        """The only way from a request to rows: what is not in here does not exist for the user."""
        return self.filter(user=user)

    def settle_abandoned(self, *, now: datetime) -> int:
        """Mark responses whose process is gone as interrupted; how many there were."""
        abandoned = self.filter(status__in=Response.ACTIVE, lease_until__lt=now)
        return sum(
            abandoned.filter(pk=pk).update(  # its process may just have come back
                status=Response.Status.INTERRUPTED,
                finish_reason="error",
                error=INTERRUPTION,
                completion_tokens=len(token_ids),
                finished_at=now,
            )
            for pk, token_ids in abandoned.values_list("pk", "token_ids")
        )


class Response(models.Model):
    """One attempt to answer a prompt: `queued → streaming → done | stopped | failed | interrupted`.

    seed, temperature, top_p, top_k, max_tokens, stop: the sampling actually used.
    token_ids: every id that the model made, the stop token included; with the seed
    they allow to continue after a crash.
    adapter: name and revision of the LoRA that was in the weights; empty without one.
    tools: the functions that the model could call. tool_calls: those that it called.
    omitted: ids of the prompts and responses that did not fit the context.
    fingerprint: names the history that ends here, for clients that resend all of it.
    lease_until: while active, the time by which its process will have renewed this.
    """

    class Status(models.TextChoices):
        QUEUED = "queued"
        STREAMING = "streaming"
        DONE = "done"
        STOPPED = "stopped"
        FAILED = "failed"
        INTERRUPTED = "interrupted"

    ACTIVE = (Status.QUEUED, Status.STREAMING)
    READABLE = (Status.DONE, Status.STOPPED, Status.INTERRUPTED)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="responses")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="responses"
    )
    api_key = models.ForeignKey(
        "ApiKey", null=True, blank=True, on_delete=models.SET_NULL, related_name="responses"
    )
    surface = models.CharField(max_length=20, help_text="The route that it was asked through.")
    client = models.JSONField(
        default=dict, blank=True, help_text="What the client told about itself: user, metadata."
    )
    imported = models.BooleanField(
        default=False, help_text="Sent by a client as history, not generated here."
    )
    status = models.CharField(max_length=12, choices=Status, default=Status.QUEUED)
    finish_reason = models.CharField(max_length=12, blank=True)
    error = models.TextField(blank=True)
    text = models.TextField(blank=True)
    token_ids = models.JSONField(default=list, blank=True)
    model = models.CharField(max_length=200, blank=True)
    revision = models.CharField(max_length=64, blank=True)
    adapter = models.CharField(max_length=200, blank=True)
    tools = models.JSONField(default=list, blank=True)
    tool_calls = models.JSONField(default=list, blank=True)
    seed = models.BigIntegerField(null=True)
    temperature = models.FloatField(null=True)
    top_p = models.FloatField(null=True)
    top_k = models.PositiveIntegerField(null=True)
    max_tokens = models.PositiveIntegerField(null=True)
    stop = models.JSONField(default=list, blank=True)
    prompt_tokens = models.PositiveIntegerField(null=True)
    completion_tokens = models.PositiveIntegerField(null=True)
    omitted = models.JSONField(default=list, blank=True)
    fingerprint = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True, editable=False)
    first_token_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)
    lease_until = models.DateTimeField(null=True, editable=False)

    objects = ResponseQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                name="response_status_is_known",
                condition=models.Q(
                    status__in=[
                        "queued",
                        "streaming",
                        "done",
                        "stopped",
                        "failed",
                        "interrupted",
                    ]
                ),
            )
        ]
        indexes = [
            models.Index(fields=["user", "-created_at"]),
            models.Index(fields=["-created_at"]),
            models.Index(fields=["user", "fingerprint"]),
            models.Index(
                name="response_active",
                fields=["lease_until"],
                condition=models.Q(status__in=["queued", "streaming"]),
            ),
        ]

    def __str__(self) -> str:
        return shorten(self.text) or f"({self.get_status_display()})"

    @property
    def active(self) -> bool:
        return self.status in self.ACTIVE

    def turn(self) -> Turn:
        """What this response adds to the conversation."""
        calls = tuple(ToolCall(**call) for call in self.tool_calls)
        return Turn(Role.ASSISTANT, self.text, tool_calls=calls)


class ApiKey(models.Model):
    """A named secret that lets a program act as a user. Only its digest is stored."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys"
    )
    name = models.CharField(max_length=100, default="default")
    prefix = models.CharField(max_length=keys.PREFIX_LENGTH, unique=True, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} ({keys.MARK}{self.prefix}…)"

    @classmethod
    def issue(cls, *, user: Any, name: str = "default") -> tuple[Self, str]:
        """A new key and its secret, which exists nowhere else from now on."""
        secret = keys.generate()
        row = cls.objects.create(
            user=user, name=name, prefix=keys.prefix(secret), digest=keys.digest(secret)
        )
        return row, secret

    @classmethod
    def find(cls, secret: str) -> Self | None:
        """The usable key with this secret: not revoked, its user active."""
        if not keys.well_formed(secret):
            return None
        candidates: Iterable[Self] = cls.objects.select_related("user").filter(
            prefix=keys.prefix(secret), revoked_at=None, user__is_active=True
        )
        return next((row for row in candidates if keys.matches(secret, row.digest)), None)

    def touch(self) -> None:
        """Note the use, at most once a minute: authentication should not cost a write each time."""
        now = timezone.now()
        if self.last_used_at is None or now - self.last_used_at > KEY_USE_RESOLUTION:
            type(self).objects.filter(pk=self.pk).update(last_used_at=now)

    def revoke(self) -> None:
        """End the key's use; its rows stay."""
        type(self).objects.filter(pk=self.pk, revoked_at=None).update(revoked_at=timezone.now())


def shorten(text: str, length: int = 60) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text[: length * 2].split())
    return line if len(line) <= length else line[: length - 1] + "…"
