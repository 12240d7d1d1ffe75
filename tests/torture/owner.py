"""A user among many: asks, leaves, stops, and tries what is somebody else's."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from tests.torture.reading import events
from tests.torture.site import Site
from tests.torture.witness import foreign_words
from tests.torture.writer import Asked, send, take

SHARED_KEYS = 3  # names of requests that all owners use
FOREIGN = (
    ("GET", "/api/responses/{id}/"),
    ("GET", "/api/responses/{id}/events"),
    ("POST", "/api/responses/{id}/stop"),
    ("GET", "/sendMessage?prompt=x"),
    ("POST", "/chat/new/message/"),
)


@dataclass
class Board:
    """Where all owners leave the ids of their responses, for the others to try.

    read: characters that anybody has read. pried: answers to whoever tried what is not their own.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    ids: dict[str, int] = field(default_factory=dict)
    read: int = 0
    pried: int = 0

    def note(self, message_id: str, owner: int, read: int) -> None:
        with self.lock:
            self.ids[message_id] = owner
            self.read += read

    def note_pried(self) -> None:
        with self.lock:
            self.pried += 1

    def of_somebody_else(self, owner: int, chance: random.Random) -> str:
        with self.lock:
            others = [message_id for message_id, whose in self.ids.items() if whose != owner]
        return chance.choice(others) if others else ""


class Owner(threading.Thread):
    """Goes on until told to stop. faults: what should not have happened, as sentences."""

    def __init__(self, site: Site, index: int, board: Board, *, seed: int) -> None:
        super().__init__(name=f"owner-{index}", daemon=True)
        self.faults: list[str] = []
        self.enough = threading.Event()
        self._site = site
        self._index = index
        self._board = board
        self._random = random.Random(f"{seed} {index}")

    def run(self) -> None:
        deeds: list[Callable[[httpx.Client], None]] = [
            self.read_on,
            self.read_on,
            self.leave,
            self.stop_halfway,
            self.repeat,
            self.pry,
        ]
        with self._site.client(self._index) as client:
            while not self.enough.is_set():
                self._site.up.wait()
                try:
                    self._random.choice(deeds)(client)
                except httpx.TransportError:
                    continue  # the server was killed; it comes back

    def _new(self, key: str = "") -> Asked:
        words = self._random.randint(5, 30)
        return Asked(f"u{self._index}", words, returns=True, key=key or uuid.uuid4().hex)

    def read_on(self, client: httpx.Client) -> None:
        """To the end, over as many servers as it takes."""
        asked = self._new()
        while not asked.over and not self.enough.is_set():
            self._site.up.wait()
            try:
                with send(client, asked) as response:
                    take(response, asked)
            except httpx.TransportError:
                continue
        self._note(asked)

    def leave(self, client: httpx.Client) -> None:
        """After a few lines, without a word."""
        asked = self._new()
        with send(client, asked) as response:
            asked.reading.take(events(response.iter_lines(), self._random.randint(1, 6)))
        self._note(asked)

    def stop_halfway(self, client: httpx.Client) -> None:
        """In the middle, and read what is left."""
        asked = self._new()
        with send(client, asked) as response:
            lines = response.iter_lines()
            asked.reading.take(events(lines, self._random.randint(1, 6)))
            if asked.reading.message_id:
                client.post(f"/api/responses/{asked.reading.message_id}/stop")
            asked.reading.take(lines)
        self._note(asked)

    def repeat(self, client: httpx.Client) -> None:
        """With a key that everybody uses; the same key always asks for the same."""
        number = self._random.randrange(SHARED_KEYS)
        asked = Asked(f"u{self._index}", 10 + number, returns=True, key=f"shared {number}")
        with send(client, asked) as response:
            take(response, asked)
        self._note(asked)

    def pry(self, client: httpx.Client) -> None:
        """Ask for what somebody else was answered, in every way that takes an id."""
        foreign = self._board.of_somebody_else(self._index, self._random)
        if not foreign:
            return
        method, path = self._random.choice(FOREIGN)
        answer = client.request(
            method,
            path.format(id=foreign),
            headers={"Last-Event-ID": f"{foreign}:0"},
            json={"prompt": "x"} if method == "POST" else None,
        )
        self._board.note_pried()
        if answer.is_success:
            self.faults.append(f"{self.name} got what is foreign by {method} {path}: {answer.text}")
        elif answer.status_code != 404:
            self.faults.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")

    def _note(self, asked: Asked) -> None:
        reading = asked.reading
        if reading.message_id:
            self._board.note(reading.message_id, self._index, len(reading.text))
        strange = foreign_words(f"u{self._index}", reading.text) if reading.text else []
        self.faults += [f"{self.name} read the foreign word {word}" for word in strange]
        self.faults += [*reading.faults, *asked.refused]
