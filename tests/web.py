"""A real server for tests, and a reader of event streams by the book."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

Found = TypeVar("Found")


class ServerThread:
    """daphne in a thread of this process, so that tests can hand it a scripted engine."""

    def __init__(self) -> None:
        self._listening = threading.Event()
        self.address = ""

    def start(self) -> None:
        """Serve on a free port; returns when it listens."""
        threading.Thread(target=self._run, daemon=True, name="daphne").start()
        if not self._listening.wait(20):
            raise RuntimeError("daphne did not start")

    def _run(self) -> None:
        from llmsite.handler import get_application
        from llmsite.protocols import by_protocol
        from llmsite.server import Server

        class Announced(Server):
            def listen_success(thread, port: Any) -> None:  # noqa: N805
                super().listen_success(port)
                self.address = f"http://127.0.0.1:{port.getHost().port}"
                self._listening.set()

        Announced(
            by_protocol(get_application()),
            endpoints=["tcp:port=0:interface=127.0.0.1"],
            signal_handlers=False,
        ).run()


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    name: str
    data: Any
    id: str


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    """Parse an event stream (WHATWG HTML, 9.2.6), its data as JSON.

    `accepted`, which opens each of ours and says nothing of the answer, is left out.
    """
    name, data, last_id = "message", [], ""
    for line in lines:
        if not line:
            if data and name != "accepted":
                yield Event(name, json.loads("\n".join(data)), last_id)
            name, data = "message", []
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                last_id = value


def opening_of(lines: Iterator[str]) -> str:
    """The cursor that a stream of ours opens with, read up to what follows."""
    opened = dict(line.split(": ", 1) for line in iter(lambda: next(lines), ""))
    assert opened["event"] == "accepted"
    return opened["id"]


def stream(client: httpx.Client, method: str, path: str, **options: Any) -> list[Event]:
    """All events of a stream, read to its end."""
    with client.stream(method, path, **options) as response:
        assert response.status_code == 200, response.read()
        return list(read_events(response.iter_lines()))


def text_of(events: Iterable[Event]) -> str:
    """What the pieces of a stream say together."""
    return "".join(event.data["text"] for event in events if event.name == "message")


def next_text(events: Iterator[Event]) -> str:
    """What the next piece says; a place in the queue may be told before the first."""
    return next(event.data["text"] for event in events if event.name == "message")


def eventually(look: Callable[[], Found], *, seconds: float = 10.0) -> Found:
    """What `look` finds as soon as it finds something, for what no event announces."""
    pause, deadline = threading.Event(), time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{look} found nothing in {seconds} seconds"
        pause.wait(0.01)
    return found
