"""A client that asks all the time, notes what it was told, and comes back when it was cut off."""

from __future__ import annotations

import random
import threading
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.torture.reading import Reading
from tests.torture.site import Site

LATER = (409, 429, 503)  # the same request may be sent again


@dataclass
class Asked:
    """One prompt and everything that its client learned.

    returns: whether the client comes back when it was cut off, or is content with what it saw.
    refused: answers that no client should get.
    """

    name: str
    words: int
    returns: bool
    account: int = 0
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    reading: Reading = field(default_factory=Reading)
    refused: list[str] = field(default_factory=list)
    over: bool = False

    @property
    def acknowledged(self) -> bool:
        """Whether the client knows which response is its own, or that there is none."""
        return bool(self.reading.message_id) or self.over


class Writer(threading.Thread):
    """Asks through POST until told to stop; a finished writer has finished its last prompt."""

    def __init__(self, site: Site, index: int, *, seed: int, words: int = 30) -> None:
        super().__init__(name=f"writer-{index}", daemon=True)
        self.asked: list[Asked] = []
        self.enough = threading.Event()
        self._site = site
        self._index = index
        self._words = words
        self._random = random.Random(f"{seed} {index}")

    def run(self) -> None:
        with self._site.client() as client:
            while not self.enough.is_set():
                name = f"w{self._index}n{len(self.asked)}"
                words = self._random.randint(1, self._words)
                asked = Asked(name, words, returns=self._random.random() < 0.7)
                self.asked.append(asked)
                while not asked.over:
                    self._site.up.wait()
                    self._try(client, asked)

    def _try(self, client: httpx.Client, asked: Asked) -> None:
        try:
            with send(client, asked) as response:
                take(response, asked)
        except httpx.TransportError:
            asked.over = bool(asked.reading.message_id) and not asked.returns


def send(client: httpx.Client, asked: Asked) -> Any:
    """The request that the client's knowledge calls for: ask, ask again, or go on."""
    reading = asked.reading
    if reading.message_id:
        path = f"/api/responses/{reading.message_id}/events"
        return client.stream("GET", path, headers={"Last-Event-ID": reading.last_id})
    body = {"prompt": f"{asked.name} {asked.words}", "stream": True}
    headers = {"Idempotency-Key": asked.key}
    return client.stream("POST", "/chat/new/message/", json=body, headers=headers)


def take(response: httpx.Response, asked: Asked) -> None:
    """Read on; whether it is over is in `asked` afterwards."""
    if response.status_code == 200:
        asked.over = asked.reading.take(response.iter_lines())
    elif response.status_code == 204:
        asked.over = True
    elif response.status_code not in LATER:
        asked.refused.append(f"{response.status_code} {response.read()[:200]!r}")
        asked.over = True
