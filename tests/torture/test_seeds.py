"""A seed means the same alone, in a batch, and after a process died: a real engine's answers."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.db import connections
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.utils import timezone

from chat.lifecycle.supervisor import supervisor
from chat.models import Response
from modelhost.engine import Engine
from modelhost.text import ResponseDecoder
from tests.torture.reading import Reading
from tests.torture.size import FULL, amount
from tests.web import eventually

ANSWERS = amount("ANSWERS", quick=20, full=200)
SEED = amount("SEED", quick=1, full=1)
TOKENS = 32
PLACES = (0, 1, TOKENS // 3, TOKENS - 1, TOKENS)

pytestmark = pytest.mark.timeout(3600 if FULL else 120)


@dataclass(frozen=True)
class Said:
    """An answer, with all that must be the same whenever it is made again."""

    text: str
    token_ids: list[int]
    finish_reason: str
    completion_tokens: int | None
    fingerprint: str


def said(row: Response) -> Said:
    """What a finished row says."""
    return Said(row.text, row.token_ids, row.finish_reason, row.completion_tokens, row.fingerprint)


def differing(expected: Iterable[Said], rows: Iterable[Response]) -> list[tuple[Said, Said]]:
    """What was said alone beside what these rows say instead."""
    pairs = zip(expected, map(said, rows), strict=True)
    return [(alone, other) for alone, other in pairs if alone != other]


def questions() -> list[dict[str, Any]]:
    """Prompts with every way of sampling."""
    chance = random.Random(SEED)
    return [
        {
            "prompt": f"the cat and the hat number {index}",
            "seed": chance.getrandbits(53),
            "temperature": chance.choice([0.3, 0.8, 1.0, 1.7]),
            "top_p": chance.choice([1.0, 0.9, 0.5]),
            "top_k": chance.choice([0, 5, 50]),
            "max_tokens": TOKENS,
            "stream": True,
        }
        for index in range(ANSWERS)
    ]


KEPT: dict[uuid.UUID, Any] = {}


@receiver(post_save, sender=Response)
def keep(instance: Response, created: bool, **_: Any) -> None:
    """What is kept for another process is there from the first moment, and only until the end."""
    if created:
        KEPT[instance.pk] = instance.continuation


def ask(api: httpx.Client, question: dict[str, Any]) -> tuple[Response, Any]:
    """The finished row, and what was kept for another process while it was made."""
    reading = Reading()
    with api.stream("POST", "/chat/new/message/", json=question) as response:
        reading.take(response.iter_lines())
    row = Response.objects.get(pk=uuid.UUID(reading.message_id))
    connections.close_all()  # this may be a thread that nobody cleans up after
    assert reading.text == row.text
    return row, KEPT[row.pk]


def abandon(row: Response, kept: Any, *, at: int, engine: Engine) -> None:
    """Put the row back to where a process could have died."""
    decoder = ResponseDecoder(engine.decode)
    ids = row.token_ids[:at]
    Response.objects.filter(pk=row.pk).update(
        status=Response.Status.STREAMING if ids else Response.Status.QUEUED,
        token_ids=ids,
        text="".join(decoder.feed([one]) for one in ids),
        continuation=kept,
        worker="gone",
        lease_until=timezone.now() - timedelta(seconds=1),
        attempts=0,
        finish_reason="",
        completion_tokens=None,
        fingerprint="",
        finished_at=None,
    )


def test_an_answer_is_the_same_alone_in_a_batch_and_continued_anywhere(
    api: httpx.Client, real: Engine, figures: Callable[[str], None]
) -> None:
    alone = [ask(api, question) for question in questions()]
    expected = [said(row) for row, _ in alone]
    assert len({one.text for one in expected}) > ANSWERS // 2, "they are sampled"

    with ThreadPoolExecutor(20) as pool:
        batch = list(pool.map(lambda question: ask(api, question), questions()))
    assert differing(expected, (row for row, _ in batch)) == [], "in a batch it says another text"

    supervisor.start(recover=True)
    for place in PLACES:
        for row, kept in alone:
            abandon(row, kept, at=place, engine=real)
        eventually(lambda: not Response.objects.active().exists(), seconds=60)
        continued = Response.objects.in_bulk([row.pk for row, _ in alone])
        again = (continued[row.pk] for row, _ in alone)
        assert differing(expected, again) == [], (
            f"continued behind {place} ids it says another text"
        )

    assert real.restarts == 0
    figures(f"{ANSWERS} sampled answers, alone = in a batch = continued at {len(PLACES)} places")
