"""Going on with responses whose process is gone, from the ids that their rows hold.

A row that was being answered names the process that carries it and a time by which that
process renews it. When the time has passed, one conditional update makes the row ours;
with the same prompt ids, sampling and seed the text becomes what it would have been.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from django.db import Error
from django.db.models import F, QuerySet
from django.utils import timezone

from chat.conversations.exchanges import extend_fingerprint
from chat.lifecycle.live import LiveResponse
from chat.lifecycle.record import LEASE, WORKER, Record
from chat.lifecycle.recorder import release, settle
from chat.limits.admission import admission, caller_of
from chat.models import Response
from chat.monitoring import metrics
from modelhost.errors import Busy, NotReady, RequestRefused
from modelhost.ticket import Ticket
from modelhost.types import Sampling, Turn

if TYPE_CHECKING:
    from modelhost.engine import Engine

# A response that gets no further while processes die around it may be why they die.
ATTEMPTS = 5
BATCH = 100  # rows claimed at one look

CANNOT_GO_ON = "The server stopped while it worked on this response"

logger = logging.getLogger(__name__)


class CannotGoOn(Exception):
    """Why a response is at its end although it was not finished: a clause, with its full stop."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """What the next process needs besides the row itself.

    prompt_ids: the prompt as the model saw it. history: the fingerprint before it.
    """

    prompt_ids: list[int]
    history: str

    def as_json(self) -> dict[str, Any]:
        """For the row's column."""
        return {"prompt_ids": self.prompt_ids, "history": self.history}

    @classmethod
    def of(cls, row: Response) -> Self | None:
        """The row's; None when it was written before there were any."""
        return cls(**row.continuation) if row.continuation else None


def fingerprint_of(row: Response) -> str:
    """The name of the history that ends in this active row's text; empty when it is not known.

    Clients resend what they have read, also of a response that ends without being generated.
    """
    try:
        continuation = Continuation.of(row)
        if continuation is None:
            return ""
        return extend_fingerprint(continuation.history, [*row.prompt.turns(), row.turn()])
    except Exception:  # rows are as old as their makers, and this one needs an end all the same
        logger.warning("the history of response %s cannot be read", row.pk, exc_info=True)
        return ""


def abandoned(ours: Collection[UUID]) -> QuerySet[Response]:
    """Rows that no process carries any more. Asked every second: it must not read the others."""
    rows = Response.objects.abandoned(now=timezone.now(), lease=LEASE).exclude(pk__in=ours)
    return rows.select_related("prompt").order_by("lease_until", "created_at")[:BATCH]


def claim(*, ours: Collection[UUID]) -> Iterator[Response]:
    """Abandoned rows that are this process's from now on, the longest abandoned first.

    ours: what it carries already; while the database is locked their leases cannot be renewed.
    """
    if not abandoned(ours).exists():  # without their prompts, whose table may be locked
        return
    for row in abandoned(ours):
        # The lease that was read names the claim that is over: of two processes one gets it.
        mine = Response.objects.active().filter(pk=row.pk, lease_until=row.lease_until)
        if mine.update(
            worker=WORKER, lease_until=timezone.now() + LEASE, attempts=F("attempts") + 1
        ):
            row.attempts += 1
            yield row


def recover(row: Response, engine: Engine, live: LiveResponse) -> tuple[Record, Ticket] | None:
    """Go on with a claimed response where its row ends; None when it has come to its end instead.

    Raises Busy, NotReady when the engine takes nothing at the moment: the row is given back.
    """
    try:
        return _go_on(row, engine, live)
    except (Busy, NotReady):
        release(row.pk, attempts=F("attempts") - 1)  # that this was no help is no attempt
        raise
    except CannotGoOn as error:
        _end(row, Response.Status.INTERRUPTED, error=f"{CANNOT_GO_ON}; {error}")
    except Error:  # the database's trouble is not the row's
        raise
    except Exception:  # rows are as old as their makers: one that is odd must not keep the others
        logger.exception("response %s cannot be read", row.pk)
        _end(row, Response.Status.INTERRUPTED, error=f"{CANNOT_GO_ON}; its row cannot be read.")
    return None


def _go_on(row: Response, engine: Engine, live: LiveResponse) -> tuple[Record, Ticket] | None:
    if row.stop_requested:
        _end(row, Response.Status.STOPPED)
        return None
    continuation = Continuation.of(row)
    if continuation is None:
        raise CannotGoOn("its prompt is not known any more.")
    _check(row, engine)
    said = row.prompt.turns()  # whatever is odd shows before anything runs
    try:
        ticket = engine.submit(
            continuation.prompt_ids,
            sampling_of(row),
            resume=row.token_ids,
            tools=row.tools,
            owner=str(row.user_id),
        )
    except RequestRefused as error:
        raise CannotGoOn(str(error)) from error
    # Not the row's text: the ids are the truth that the rest is made from.
    live.catch_up(ticket.resumed_text)
    live.position = lambda: engine.position(ticket)
    return _record(row, continuation, live, said, ticket.resumed_text), ticket


def _record(
    row: Response,
    continuation: Continuation,
    live: LiveResponse,
    said: Sequence[Turn],
    text: str,
) -> Record:
    return Record(
        live=live,
        history=continuation.history,
        said=said,
        stop_on_leave=row.on_disconnect == Response.OnDisconnect.STOP,
        token_ids=list(row.token_ids),
        text=text,
        resumed=len(row.token_ids),
        started_at=row.started_at,
        first_token_at=row.first_token_at,
        on_end=admission.enter(
            caller_of(row.api_key_id, row.user_id),
            tokens=len(continuation.prompt_ids),
            always=True,  # it was taken in before
        ),
    )


def sampling_of(row: Response) -> Sampling:
    """The sampling that the row says was used."""
    return Sampling(
        max_tokens=row.max_tokens or 1,
        temperature=row.temperature or 0.0,
        top_p=1.0 if row.top_p is None else row.top_p,
        top_k=row.top_k or 0,
        seed=row.seed or 0,
        stop=tuple(row.stop),
    )


def _check(row: Response, engine: Engine) -> None:
    """Raises CannotGoOn."""
    card = engine.card
    if row.attempts > ATTEMPTS:
        raise CannotGoOn(f"it was tried {ATTEMPTS} times.")
    if (row.model, row.revision, row.adapter) != (card.name, card.revision, card.adapter):
        raise CannotGoOn(f"another model is served now ({card.name}).")


def _end(row: Response, status: Response.Status, *, error: str = "") -> None:
    logger.info("response %s is %s. %s", row.pk, status, error)
    if settle(
        row.pk,
        status,
        error=error,
        completion_tokens=len(row.token_ids),
        fingerprint=fingerprint_of(row),
    ):
        metrics.given_up(status)
