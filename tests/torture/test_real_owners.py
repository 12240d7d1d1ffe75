"""A real engine shared by many owners says to each what it would say to nobody else.

Every owner's prompts begin alike, so that they share blocks of the cache, and are no other
owner's. The answers are greedy: what an owner reads in the middle of a storm of others, who
leave and stop all the time, must be what the same prompt is answered alone, without sharing.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from django.contrib.auth import get_user_model
from django.db import connections

from chat.models import ApiKey, Response
from tests.modelhost.test_sharing import blocks
from tests.torture.conftest import served, small_engine
from tests.torture.reading import Reading, events
from tests.torture.size import FULL, amount
from tests.torture.waiting import until_none

TOKENS = amount("REAL_TOKENS", quick=2000, full=100_000)
OWNERS = amount("REAL_OWNERS", quick=6, full=32)
SEED = amount("SEED", quick=1, full=1)
QUESTIONS = 3  # of each owner
ANSWER = 40  # tokens
WORDS = ("the", "cat", "and", "dog", "hat", "are", "in", "tool", "call")
SETTLED_AFTER = 10.0  # seconds after the last owner left

pytestmark = pytest.mark.timeout(3600 if FULL else 120)


@dataclass
class Storm:
    """What all owners do together.

    alone: the right answer to each prompt. read: tokens of answers that came to their end.
    """

    alone: dict[str, str]
    read: int = 0
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, prompt: str, reading: Reading, *, whole: bool) -> None:
        """What an owner has read, to the answer's own end or not."""
        right, text = self.alone[prompt], reading.text
        usage = reading.problem["usage"] if reading.end == "done" else {}
        with self.lock:
            self.read += usage.get("completion_tokens", 0)
            if text != right if whole else not right.startswith(text):
                self.faults.append(f"{prompt!r} was told foreign words: {text!r}, not {right!r}")
            self.faults += reading.faults


def questions(owner: int) -> list[str]:
    """Prompts of one owner; what they begin with fills some blocks of the cache."""
    chance = random.Random(f"{SEED} {owner}")
    beginning = " ".join(chance.choices(WORDS, k=40))
    return [f"u{owner} {beginning} {chance.choice(WORDS)} {number}" for number in range(QUESTIONS)]


def ask(client: httpx.Client, prompt: str) -> Any:
    """A stream of the answer, which ends with its reader."""
    body = {
        "prompt": prompt,
        "max_tokens": ANSWER,
        "temperature": 0,
        "stream": True,
        "on_disconnect": "stop",
    }
    return client.stream("POST", "/chat/new/message/", json=body)


def read_on(client: httpx.Client, prompt: str) -> Reading:
    """To the end."""
    reading = Reading()
    with ask(client, prompt) as response:
        assert response.status_code == 200, response.read()
        reading.take(response.iter_lines())
    assert reading.end == "done", reading.problem
    return reading


def leave(client: httpx.Client, prompt: str, moment: int) -> Reading:
    """After some events, without a word."""
    reading = Reading()
    with ask(client, prompt) as response:
        reading.take(events(response.iter_lines(), moment))
    return reading


def stop(client: httpx.Client, prompt: str, moment: int) -> Reading:
    """After some events, and read what is left."""
    reading = Reading()
    with ask(client, prompt) as response:
        lines = response.iter_lines()
        reading.take(events(lines, moment))
        client.post(f"/api/responses/{reading.message_id}/stop")
        reading.take(lines)
    return reading


def live(client: httpx.Client, owner: int, storm: Storm) -> None:
    """One owner among the others, until all together have read enough."""
    chance = random.Random(f"{SEED} deeds of {owner}")
    while storm.read < TOKENS and not storm.faults:
        prompt = chance.choice(questions(owner))
        deed = chance.choice([read_on, read_on, leave, stop])
        if deed is read_on:
            storm.note(prompt, read_on(client, prompt), whole=True)
        else:
            storm.note(prompt, deed(client, prompt, chance.randint(1, 12)), whole=False)


@pytest.fixture
def clients(client_for: Callable[[str | None], httpx.Client]) -> list[httpx.Client]:
    """Users u0, u1 …, each with a client."""
    users = [get_user_model().objects.create(username=f"u{index}") for index in range(OWNERS)]
    return [client_for(ApiKey.issue(user=user)[1]) for user in users]


def answers(clients: list[httpx.Client]) -> Iterator[tuple[str, str]]:
    """Each owner's prompts and what they are answered, one at a time."""
    for index, client in enumerate(clients):
        for prompt in questions(index):
            yield prompt, read_on(client, prompt).text


def strange(row: Response, alone: dict[str, str]) -> Iterator[str]:
    """What in a row is not its owner's, or not the right answer."""
    prompt = row.prompt.content
    if prompt.split()[0] != row.user.username or not alone[prompt].startswith(row.text):
        yield f"{row.user.username} was told foreign words: {row.text!r} to {prompt!r}"
    if row.status not in ("done", "stopped") or (
        row.status == "done" and row.text != alone[prompt]
    ):
        yield f"{prompt!r} is {row.status}: {row.text!r} {row.error}"


def test_each_owner_is_told_what_it_would_be_told_alone(
    clients: list[httpx.Client], request: pytest.FixtureRequest, figures: Callable[[str], None]
) -> None:
    with served(small_engine(request, share_prefixes=False)):
        alone = dict(answers(clients))
    assert len(set(alone.values())) == OWNERS * QUESTIONS, "no two answers are alike"

    storm = Storm(alone)
    with served(small_engine(request)) as engine, ThreadPoolExecutor(OWNERS) as pool:
        list(pool.map(live, clients, range(OWNERS), [storm] * OWNERS))
        until_none(lambda: range(engine.active), "generated for nobody", seconds=SETTLED_AFTER)
        reused, restarts = blocks(engine).reused, engine.restarts
    rows = list(Response.objects.select_related("prompt", "user"))
    connections.close_all()
    faults = storm.faults + [fault for row in rows for fault in strange(row, alone)]
    cancelled = sum(row.status == "stopped" for row in rows)

    assert faults == [], "\n".join(faults)
    assert restarts == 0, f"the engine died {restarts} times"
    assert reused > len(rows), "blocks were shared"
    assert cancelled > OWNERS, "some were cancelled in between"
    figures(
        f"{OWNERS} owners read {storm.read} tokens of a real engine's {len(rows)} answers, "
        f"{cancelled} of them cancelled, {reused} tokens of prompts shared: 0 foreign"
    )
