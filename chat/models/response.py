"""Responses: attempts to answer a prompt, each with everything needed to judge or repeat it."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.utils import timezone

from modelhost.types import Role, ToolCall, Turn


class ResponseQuerySet(models.QuerySet["Response"]):
    """Sets of responses."""

    def for_user(self, user: Any) -> Self:
        """The only way from a request to rows: what is not in here does not exist for the user."""
        return self.filter(user=user)

    def active(self) -> Self:
        """Those that have no outcome yet."""
        return self.filter(status__in=Response.ACTIVE)

    def hold(self) -> list[uuid.UUID]:
        """Lock them, inside a transaction, and wait for none; their ids.

        Raises OperationalError where another session has one: see `chat.database.when_unlocked`.
        """
        rows = self.only("pk").select_for_update(of=("self",), nowait=True)
        return [row.pk for row in rows]

    def abandoned(self, *, now: datetime, lease: timedelta) -> Self:
        """Those without an outcome that no process carries any more.

        lease: of a process that lives. What lies far beyond it is from before a clock was set back.
        """
        over, odd = models.Q(lease_until__lt=now), models.Q(lease_until__gt=now + 2 * lease)
        # In order of the leases SQLite would read the whole index if it were not told to begin
        # behind those that have none: everything that is over.
        return self.active().filter(over | odd, lease_until__isnull=False)


class Response(models.Model):
    """One attempt to answer a prompt: `queued → streaming → done | stopped | failed | interrupted`.

    Interrupted is what could not be continued after its process ended.

    system: the persona that it was asked under; null where that is the conversation's.
    seed, temperature, top_p, top_k, max_tokens, stop: the sampling actually used.
    token_ids: every id that the model made, the stop token included; with the seed
    they allow to continue after a crash.
    adapter: name and revision of the LoRA that was in the weights; empty without one.
    tools: the functions that the model could call. tool_calls: those that it called.
    omitted: ids of the prompts and responses that did not fit the context.
    fingerprint: names the history that ends here, for clients that resend all of it.
    request_digest: names the request that asked, so that its retry is recognised.

    While it is active:
    worker: the process that carries it. lease_until: when that process, if it has not
    renewed this, counts as gone. attempts: how often a process took it over since it last grew.
    continuation: the prompt's ids and the name of the history before it, which is what a
    process needs besides the row itself to go on.
    stop_requested: somebody stopped it through a process that does not carry it.
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

    class OnDisconnect(models.TextChoices):
        """What happens when the last client that waits for it has left."""

        FINISH = "finish"
        STOP = "stop"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    prompt = models.ForeignKey("Prompt", on_delete=models.CASCADE, related_name="responses")
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
    system = models.TextField(null=True, editable=False)  # noqa: DJ001  empty is: without one
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
    on_disconnect = models.CharField(
        max_length=6, choices=OnDisconnect, default=OnDisconnect.FINISH
    )
    request_digest = models.CharField(max_length=64, blank=True, editable=False)
    worker = models.CharField(max_length=64, blank=True, editable=False)
    lease_until = models.DateTimeField(null=True, editable=False)
    attempts = models.PositiveSmallIntegerField(default=0, editable=False)
    continuation = models.JSONField(null=True, editable=False)
    stop_requested = models.BooleanField(default=False, editable=False)

    objects = ResponseQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        permissions = [("export_response", "Can download the log")]
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
            models.Index(fields=["api_key", "-created_at"]),
            models.Index(fields=["user", "fingerprint"]),
            models.Index(fields=["user", "request_digest", "-created_at"]),
            # What is active has a worker and a lease, nothing else has; both are looked for several
            # times a second. Not partial: SQLite uses such an index for literals only.
            models.Index(name="response_worker", fields=["worker"]),
            models.Index(name="response_lease", fields=["lease_until"]),
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


def shorten(text: str, length: int = 60) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text[: length * 2].split())
    return line if len(line) <= length else line[: length - 1] + "…"
