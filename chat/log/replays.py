"""Answering again what was answered before, to see whether the answer is still the same.

Nothing is stored. With the model, the prompt and the seed of a row its answer comes again, to the
token (in float32 on CPUs; on a card near-ties may fall otherwise): what differs was changed by new
libraries, other settings or another model, and is seen before users see it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import takewhile
from typing import TYPE_CHECKING, TypeVar

from django.db.models import QuerySet
from django.http import Http404

from chat.conversations import history, personas
from chat.lifecycle.recovery import sampling_of
from chat.models import Response
from modelhost.errors import ModelHostError
from modelhost.ticket import Ticket
from modelhost.types import FinishReason, Turn

if TYPE_CHECKING:
    from modelhost.engine import Engine

AT_ONCE = 8  # answers that are generated together

One = TypeVar("One")


class Agreement(StrEnum):
    """What came of it. IMPOSSIBLE: it could not be asked again as it was asked then."""

    SAME = "same"
    DIFFERS = "differs"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class Replay:
    """One answer, once more.

    before, now: what differs, from the first difference on. reason: why it was impossible.
    """

    response: Response
    agreement: Agreement
    before: str = ""
    now: str = ""
    reason: str = ""


class CannotReplay(Exception):
    """Why an answer cannot be asked for as it was: a sentence."""


def replayable(rows: QuerySet[Response]) -> QuerySet[Response]:
    """Those that were generated here, newest first."""
    made_here = rows.filter(status__in=Response.READABLE, imported=False)
    related = made_here.select_related("prompt__conversation", "prompt__follows__prompt")
    return related.order_by("-created_at", "-pk")


def replays(rows: Iterable[Response], engine: Engine) -> Iterator[Replay]:
    """Each of them once more, in their order; some are generated together."""
    under_way: deque[tuple[Response, Ticket | str]] = deque()
    for row in rows:
        if len(under_way) == AT_ONCE:
            yield _compared(*under_way.popleft(), engine)
        under_way.append((row, _asked(row, engine)))
    while under_way:
        yield _compared(*under_way.popleft(), engine)


def _asked(row: Response, engine: Engine) -> Ticket | str:
    """The row's question under way, or why it is not."""
    sampling = sampling_of(row)
    if row.status != Response.Status.DONE:  # somebody stopped it: so far it must be the same
        sampling = replace(sampling, max_tokens=max(1, len(row.token_ids)))
    try:
        return engine.submit(
            _prompt_of(row, engine), sampling, tools=row.tools, owner=str(row.user_id)
        )
    except (CannotReplay, ModelHostError) as error:
        return str(error)


def _prompt_of(row: Response, engine: Engine) -> list[int]:
    """What the model is to read. Raises CannotReplay where that is not what it read then."""
    place = history.place_again(row.prompt)
    place.system = personas.seen(row)
    try:
        steps = history.steps(place, Turn(row.prompt.role, row.prompt.content))
    except Http404 as error:
        raise CannotReplay("What led to it was deleted meanwhile.") from error
    rendered = engine.render(
        [step.turn for step in steps], max_tokens=row.max_tokens, tools=row.tools
    )
    if history.row_ids(steps, rendered.omitted) != row.omitted:
        raise CannotReplay("Other earlier turns fit into the context now.")
    count = len(rendered.token_ids)
    if _same_model(row, engine) and count != row.prompt_tokens:
        raise CannotReplay(f"Its prompt had {row.prompt_tokens} tokens and has {count} now.")
    return list(rendered.token_ids)


def _compared(row: Response, ticket: Ticket | str, engine: Engine) -> Replay:
    if isinstance(ticket, str):
        return Replay(row, Agreement.IMPOSSIBLE, reason=ticket)
    text = asyncio.run(_text(ticket))
    if ticket.finish is None or ticket.finish.reason is FinishReason.ERROR:
        reason = ticket.finish.error if ticket.finish else "The engine was stopped."
        return Replay(row, Agreement.IMPOSSIBLE, reason=reason)
    if not _same_model(row, engine):  # whose ids mean other texts
        return _difference(row, row.text, text, "".join)
    ids = ticket.delivered
    if row.status != Response.Status.DONE:
        ids = ids[: len(row.token_ids)]
    return _difference(row, row.token_ids, ids, engine.decode)


async def _text(ticket: Ticket) -> str:
    """All of it, once it is there."""
    return "".join([piece.text async for piece in ticket])


def _difference(
    row: Response, before: Sequence[One], now: Sequence[One], read: Callable[[Sequence[One]], str]
) -> Replay:
    if before == now:
        return Replay(row, Agreement.SAME)
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False))
    start = sum(1 for _ in pairs)
    return Replay(row, Agreement.DIFFERS, read(before[start:]), read(now[start:]))


def _same_model(row: Response, engine: Engine) -> bool:
    card = engine.card
    return (row.model, row.revision, row.adapter) == (card.name, card.revision, card.adapter)
