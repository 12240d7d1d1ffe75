"""What the row of a live response shall say, and how much of that it says already."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from django.utils import timezone

from chat.conversations.exchanges import extend_fingerprint
from chat.lifecycle.live import LiveResponse, Outcome
from chat.models import Response
from modelhost.types import Finish, FinishReason, Piece, Role, Turn

# So long after a crash another process may go on. It must cover a database that is locked
# for a while, or a healthy process loses its work.
LEASE = timedelta(seconds=5)
RENEWALS = 5  # in the time of one lease

# The name of this process in the rows that it carries.
WORKER = f"{socket.gethostname()[:30]}:{uuid.uuid4().hex[:16]}"

STATUS_OF = {
    FinishReason.STOP: Response.Status.DONE,
    FinishReason.LENGTH: Response.Status.DONE,
    FinishReason.TOOL_CALLS: Response.Status.DONE,
    FinishReason.CANCELLED: Response.Status.STOPPED,
    FinishReason.ERROR: Response.Status.FAILED,
}


# What a row keeps only while it is active.
SETTLED: dict[str, Any] = {"lease_until": None, "worker": "", "continuation": None}

# What it says when the process that carried it stops: nobody's, and that is nobody's fault.
RELEASED: dict[str, Any] = {"worker": "", "attempts": 0}


class Hold(StrEnum):
    """Whose a row is. RELEASED: it says that it waits for the next process. LOST: it is gone, was
    settled, or is carried by somebody else."""

    OURS = "ours"
    RELEASED = "released"
    LOST = "lost"


@dataclass(slots=True, eq=False)
class Record:
    """What a live response's row shall say, and how much of that it says already.

    history: the fingerprint before this prompt. said: the prompt's own turns.
    text: what the ids say; readers may know more of it already, from a process before.
    stopped: somebody asked for its end. suspended: this process stops, and the row stays open
    for the next one. hold: what this process still has of the row.
    stored: the outcome that the row says. told: its columns, as they were written last.
    leased_at: monotonic time of that lease.
    on_end: gives back the place among the requests that are served at once.
    resumed: how many ids the row had when this process took it over.
    """

    live: LiveResponse
    history: str
    said: Sequence[Turn]
    stop_on_leave: bool = False
    on_end: Callable[[], None] = lambda: None
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    resumed: int = 0
    started_at: datetime | None = None
    first_token_at: datetime | None = None
    finish: Finish | None = None
    finished_at: datetime | None = None
    stopped: bool = False
    suspended: bool = False
    hold: Hold = Hold.OURS
    dirty: bool = True
    stored: Outcome | None = None
    told: dict[str, Any] = field(default_factory=dict)
    leased_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, piece: Piece) -> None:
        """Note a piece and show it to the readers."""
        self.first_token_at = self.first_token_at or timezone.now()
        with self._lock:
            self.token_ids += piece.token_ids
            self.text += piece.text
            self.live.catch_up(self.text)
        self.dirty = True

    def settle(self, finish: Finish) -> None:
        """Note the end; the readers hear of it when the row says so."""
        self.finished_at = timezone.now()
        self.finish = finish
        self.dirty = True

    def goes_on_elsewhere(self, finish: Finish | None) -> bool:
        """Whether nobody asked for this end: the process had to stop."""
        cancelled = finish is not None and finish.reason is FinishReason.CANCELLED
        return cancelled and self.suspended and not self.stopped

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it goes on, here or in the next process."""
        finish = self.finish
        if finish is None or self.goes_on_elsewhere(finish):
            return None
        status = STATUS_OF[finish.reason]
        return Outcome(status, finish.reason, finish.usage, finish.error, finish.tool_calls)

    @property
    def due(self) -> bool:
        """Whether its row shall be written now."""
        return self.dirty or self._lease_is_old()

    def news(self, outcome: Outcome | None, hold: Hold) -> dict[str, Any]:
        """Columns that the row does not say yet; never none, or nobody would see that it is gone.

        The lease is written when it is old: an index that stays as it is makes a write cheap.
        """
        columns = self._columns(outcome, hold)
        news = {
            name: value
            for name, value in columns.items()
            if name not in self.told or self.told[name] != value
        }
        active = outcome is None and hold is Hold.OURS
        if active and (self._lease_is_old() or not news):
            news["lease_until"] = timezone.now() + LEASE
        # Settled, and asked again because a round failed behind its commit: it is lost then.
        return news or {"status": columns["status"]}

    def written(self, news: Mapping[str, Any], outcome: Outcome | None, hold: Hold) -> None:
        """The row says this now."""
        self.told.update(news)
        self.stored, self.hold = outcome, hold
        if "lease_until" in news:
            self.leased_at = time.monotonic()

    def _lease_is_old(self) -> bool:
        return time.monotonic() > self.leased_at + LEASE.total_seconds() / RENEWALS

    def _columns(self, outcome: Outcome | None, hold: Hold) -> dict[str, Any]:
        """All that the row shall say, without a lease that goes on."""
        with self._lock:  # text and ids must be of one moment: a crash leaves just these
            text, token_ids = self.text, list(self.token_ids)
        values: dict[str, Any] = {
            "status": Response.Status.STREAMING if token_ids else Response.Status.QUEUED,
            "text": text,
            "token_ids": token_ids,
            "started_at": self.started_at,
            "first_token_at": self.first_token_at,
        }
        if len(token_ids) > self.resumed:
            values["attempts"] = 0  # it is not what makes processes die
        if outcome:
            answer = Turn(Role.ASSISTANT, text, tool_calls=outcome.tool_calls)
            values |= {
                "status": outcome.status,
                "finish_reason": outcome.finish_reason,
                "error": outcome.error,
                "tool_calls": [asdict(call) for call in outcome.tool_calls],
                "prompt_tokens": outcome.usage.prompt_tokens,
                "completion_tokens": outcome.usage.completion_tokens,
                "finished_at": self.finished_at,
                "fingerprint": extend_fingerprint(self.history, [*self.said, answer]),
                **SETTLED,
            }
        elif hold is Hold.RELEASED:
            values |= {**RELEASED, "lease_until": timezone.now()}
        return values
