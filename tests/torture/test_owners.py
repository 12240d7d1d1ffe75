"""Nobody reads another's words: many owners, stops, equal keys, restarts."""

from __future__ import annotations

import itertools
import random
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from chat.models import Response
from tests.torture.owner import Board, Owner
from tests.torture.promises import unfinished
from tests.torture.reading import Reading
from tests.torture.site import Site
from tests.torture.size import FULL, amount
from tests.torture.store import Row
from tests.torture.waiting import until_none
from tests.torture.witness import StridingWitness, foreign_words, witness_text
from tests.web import ServerThread

CHARACTERS = amount("WITNESSED", quick=10_000, full=100_000)  # a witness's token is a character
PRIED = amount("PRIED", quick=20, full=1000)  # tries to have what is somebody else's
ROUNDS = amount("EQUAL_KEYS", quick=1, full=100)
SEED = amount("SEED", quick=1, full=1)
OWNERS = 32
AT_ONCE = 100
SETTLED_AFTER = 10.0  # seconds after the last owner left

pytestmark = pytest.mark.timeout(3600 if FULL else 120)


def test_no_word_reaches_anybody_but_the_one_who_asked_for_it(
    new_site: Callable[..., Site], figures: Callable[[str], None]
) -> None:
    site = new_site(accounts=OWNERS, lease=1.0, pause=0.01)
    board, chance, restarts = Board(), random.Random(SEED), 0
    owners = [Owner(site, index, board, seed=SEED) for index in range(OWNERS)]
    for owner in owners:
        owner.start()

    for how in itertools.cycle([signal.SIGKILL, signal.SIGTERM]):
        site.start()
        threading.Event().wait(chance.uniform(1, 3))
        if board.read >= CHARACTERS and board.pried >= PRIED:
            break
        site.end(how)
        restarts += 1

    for owner in owners:
        owner.enough.set()
    for owner in owners:
        owner.join(20)
    assert [owner for owner in owners if owner.is_alive()] == []
    until_none(lambda: unfinished(site.store.rows()), "left unfinished", seconds=SETTLED_AFTER)
    rows = site.store.rows()
    faults = [fault for owner in owners for fault in owner.faults]
    faults += [fault for row in rows for fault in strange(row)]
    assert faults == [], "\n".join(faults)
    assert [row.id for row in rows if row.id in board.ids] != []
    assert {row.id: row.owner for row in rows if row.id in board.ids} == {
        message_id: f"u{owner}" for message_id, owner in board.ids.items()
    }
    figures(
        f"{OWNERS} owners read {board.read} characters of {len(rows)} answers over {restarts} "
        f"restarts: 0 foreign, 0 of another's answers found in {board.pried} tries"
    )


def strange(row: Row) -> Iterator[str]:
    """What in a row is not its owner's, or not the right answer."""
    text = witness_text(row.owner, row.seed, row.words)
    if row.name != row.owner or (row.text and foreign_words(row.owner, row.text)):
        yield f"{row.owner} has {row.prompt}: {row.text!r}"
    if not text.startswith(row.text) or (row.status == "done" and row.text != text):
        yield f"{row.prompt} is {row.status}: {row.text!r} {row.error}"
    if row.status not in ("done", "stopped"):
        yield f"{row.prompt} is {row.status}: {row.error}"


def test_a_request_sent_many_times_at_once_with_one_key_is_one_response(
    server: ServerThread, witness: StridingWitness, key: str, figures: Callable[[str], None]
) -> None:
    def ask(name: str) -> Reading:
        reading = Reading()
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": name}
        body = {"prompt": f"{name} 20", "stream": True}
        with client.stream("POST", "/chat/new/message/", json=body, headers=headers) as response:
            assert response.status_code == 200, response.read()
            reading.take(response.iter_lines())
        return reading

    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    with (
        httpx.Client(base_url=server.address, timeout=60, limits=limits, trust_env=False) as client,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        for number in range(ROUNDS):
            readings = list(pool.map(ask, [f"equal{number}"] * AT_ONCE))

            times = len({reading.message_id for reading in readings})
            assert times == 1, f"one key was asked {times} times"
            row = Response.objects.get(pk=uuid.UUID(readings[0].message_id))
            assert {reading.text for reading in readings} == {row.text}
            assert {reading.end for reading in readings} == {"done"}
            assert witness.generations == Response.objects.count() == number + 1

    figures(f"{ROUNDS} × {AT_ONCE} equal requests at once: {ROUNDS} generations")
