"""What one client has seen of one response, over as many connections as it took.

Reads an event stream by the book (WHATWG HTML, 9.2.6): an event that was cut off before its
blank line is nothing, an id alone is a cursor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Reading:
    """A text that grows, the cursor behind it, and how the stream ended.

    last_id: what a reconnecting client sends. end: the name of the terminal event.
    faults: gaps and repeats, as sentences.
    """

    text: str = ""
    last_id: str = ""
    end: str = ""
    problem: Any = None
    connections: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def message_id(self) -> str:
        """The acknowledgement: empty until the server named the response."""
        return self.last_id.partition(":")[0]

    @property
    def cursor(self) -> int:
        return int(self.last_id.partition(":")[2] or 0)

    def take(self, lines: Iterable[str]) -> bool:
        """Read one connection's stream; whether it came to its terminal event."""
        self.connections += 1
        name, data, position = "message", "", self.last_id
        for line in lines:
            if not line:
                self._dispatch(name, data, position)
                if self.end:
                    return True
                name, data = "message", ""
                continue
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if key == "event":
                name = value
            elif key == "data":
                data += value
            elif key == "id":
                position = value
        return False

    def _dispatch(self, name: str, data: str, position: str) -> None:
        if self.message_id not in ("", position.partition(":")[0]):
            self.faults.append(f"the stream of {self.message_id} became {position}")
        self.last_id = position
        if name in ("done", "error"):
            self.end, self.problem = name, json.loads(data)
        elif data and name == "message":
            self.text += json.loads(data)["text"]
        if self.cursor != len(self.text):
            self.faults.append(f"{len(self.text)} characters at cursor {self.cursor}")


def events(lines: Iterable[str], count: int) -> Iterator[str]:
    """The lines of the next few events; those behind them are left for later."""
    for line in lines:
        yield line
        count -= not line
        if count == 0:
            return
