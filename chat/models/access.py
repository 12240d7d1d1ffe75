"""Who asks: keys that let programs act as users, and the keys that make a retry safe."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.utils import timezone

from chat.access import keys
from chat.statements import fetch

KEY_USE_RESOLUTION = timedelta(minutes=1)


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
        row = cls(user=user, name=name)
        secret = row.new_secret()
        row.save(force_insert=True)
        return row, secret

    def new_secret(self) -> str:
        """A secret for a row that was not saved yet."""
        secret = keys.generate()
        self.prefix, self.digest = keys.prefix(secret), keys.digest(secret)
        return secret

    @classmethod
    def find(cls, secret: str) -> Self | None:
        """The usable key with this secret: not revoked, its user active."""
        if not keys.well_formed(secret):
            return None
        row = fetch(cls, "prefix", keys.prefix(secret), to="user")
        if row is None or row.revoked_at is not None or not row.user.is_active:
            return None
        return row if keys.matches(secret, row.digest) else None

    def touch(self) -> None:
        """Note the use, at most once a minute: authentication should not cost a write each time."""
        now = timezone.now()
        # Either way: a clock that was set back must not keep a use that is still to come.
        if self.last_used_at is None or abs(now - self.last_used_at) > KEY_USE_RESOLUTION:
            type(self).objects.filter(pk=self.pk).update(last_used_at=now)

    def revoke(self) -> bool:
        """End the key's use; its rows stay. Whether it was usable until now."""
        usable = type(self).objects.filter(pk=self.pk, revoked_at=None)
        return bool(usable.update(revoked_at=timezone.now()))


class IdempotencyKey(models.Model):
    """A name that a client gave to one request: a retry under it joins what it started.

    digest: names the request's path and body; the same key with another one is a mistake.
    See https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="idempotency_keys"
    )
    key = models.CharField(max_length=255)
    digest = models.CharField(max_length=64)
    response = models.ForeignKey(
        "Response", on_delete=models.CASCADE, related_name="idempotency_keys"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_is_unique")
        ]
        indexes = [models.Index(fields=["created_at"])]

    def __str__(self) -> str:
        return self.key
