"""Retries that join what they repeat instead of paying for it twice.

A client may name its request with `Idempotency-Key`; the official OpenAI clients name
nothing, but count their retries in `x-stainless-retry-count`. Either way a retry finds
the response that the first try started, if that is running or done.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from rest_framework.exceptions import ValidationError

from chat.access.callers import Caller
from chat.limits.request_slots import alone
from chat.models import ApiKey, IdempotencyKey, Response

HEADER = "Idempotency-Key"
RETRY_HEADER = "X-Stainless-Retry-Count"
LONGEST_KEY = 255  # characters
NOT_A_KEY = f"1 to {LONGEST_KEY} printable characters are required."
KEPT = timedelta(hours=24)
RETRY_WINDOW = timedelta(minutes=10)
FORGET_EVERY = 600.0  # seconds

JOINABLE = (*Response.ACTIVE, Response.Status.DONE)


class KeyReused(Exception):
    """The key names another request already."""

    def __init__(self) -> None:
        super().__init__("This idempotency key was sent with another request.")


class KeyTaken(Exception):
    """An equal request with this key was faster."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a request names itself: by a key of its own, and by what it asks.

    retry: the client says that it tried this before.
    """

    user: Any
    api_key: ApiKey | None = None
    digest: str = ""
    key: str = ""
    retry: bool = False

    @property
    def caller(self) -> str:
        """Whose places it takes."""
        return Caller(self.user, self.api_key).name

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Equal keys go one after the other through this process; others do not wait.

        So what comes second finds the row of the first and joins it, instead of being rendered,
        and counted against the caller's limits, once more.
        """
        if not self.key:
            yield
            return
        with _key_locks.held((self.user.pk, self.key)):
            yield

    def earlier(self) -> Response | None:
        """The response of an earlier attempt, to be joined. Raises KeyReused."""
        if self.key:
            named = self._named()
            return named.response if named and named.response.status in JOINABLE else None
        if self.retry:
            same = Response.objects.for_user(self.user).filter(
                api_key=self.api_key,
                request_digest=self.digest,
                created_at__gte=timezone.now() - RETRY_WINDOW,
                status__in=JOINABLE,
            )
            return same.select_related("prompt").order_by("-created_at").first()
        return None

    def remember(self, response: Response) -> None:
        """Bind the key to a stored response, inside its transaction.

        A key whose response came to nothing is free again. Raises KeyReused, KeyTaken.
        """
        if not self.key:
            return
        row, created = IdempotencyKey.objects.select_for_update().get_or_create(
            user=self.user,
            key=self.key,
            defaults={"digest": self.digest, "response": response},
        )
        if created:
            return
        if self._outdated(row) or (
            row.digest == self.digest and row.response.status not in JOINABLE
        ):
            row.digest, row.response, row.created_at = self.digest, response, timezone.now()
            row.save()
        elif row.digest != self.digest:
            raise KeyReused
        else:
            raise KeyTaken

    def _named(self) -> IdempotencyKey | None:
        rows = IdempotencyKey.objects.select_related("response__prompt")
        row = rows.filter(user=self.user, key=self.key).first()
        if row is None or self._outdated(row):
            return None
        if row.digest != self.digest:
            raise KeyReused
        return row

    def _outdated(self, row: IdempotencyKey) -> bool:
        return row.created_at < timezone.now() - KEPT


def is_key(text: str) -> bool:
    """Whether a request can be named so."""
    return 0 < len(text) <= LONGEST_KEY and text.isprintable()


def attempt_of(
    request: HttpRequest, *, user: Any, api_key: ApiKey | None, body: Any, key: str = ""
) -> Attempt:
    """How a request names itself. Raises ValidationError for a malformed key.

    key: what it says elsewhere than in the header, which wins.
    """
    key = request.headers.get(HEADER, key)
    if HEADER in request.headers and not is_key(key):
        raise ValidationError({HEADER: [NOT_A_KEY]})
    tried = request.headers.get(RETRY_HEADER, "0")
    retry = tried.isdecimal() and bool(tried.strip("0"))
    return Attempt(user, api_key, digest(request.path, body), key, retry)


def digest(path: str, body: Any) -> str:
    """The name of a request: sha256 over its path and its JSON, whatever the fields' order."""
    said = json.dumps([path.rstrip("/"), body], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


class _KeyLocks:
    """A lock for each name that somebody goes through with, and for no other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._going: dict[tuple[Any, str], tuple[threading.Lock, int]] = {}

    @contextmanager
    def held(self, name: tuple[Any, str]) -> Iterator[None]:
        with self._lock:
            turn, count = self._going.get(name, (threading.Lock(), 0))
            self._going[name] = turn, count + 1
        try:
            with alone(turn):
                yield
        finally:
            with self._lock:
                turn, count = self._going.pop(name)
                if count > 1:
                    self._going[name] = turn, count - 1


_key_locks = _KeyLocks()


class _Forgetting:
    """Old keys are deleted now and then, not at each look."""

    next_at = 0.0


def forget_old() -> None:
    """Delete keys that bind nothing any more."""
    if time.monotonic() >= _Forgetting.next_at:
        _Forgetting.next_at = time.monotonic() + FORGET_EVERY
        IdempotencyKey.objects.filter(created_at__lt=timezone.now() - KEPT).delete()
