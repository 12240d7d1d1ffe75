"""One answer as a client saw it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Self


@dataclass(slots=True)
class Answer:
    """Times are monotonic seconds of this machine, so they mean the same in every process.

    name: of the conversation, and which turn of it. pieces: when each piece of text came.
    error: why it is no answer; empty when it is one.
    """

    name: str
    begun: float
    pieces: list[tuple[float, str]] = field(default_factory=list)
    error: str = ""

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.pieces)

    @property
    def seconds_to_first(self) -> float:
        return self.pieces[0][0] - self.begun

    @property
    def gaps(self) -> list[float]:
        """Seconds between one piece and the next."""
        return [after - before for (before, _), (after, _) in pairwise(self.pieces)]

    @property
    def trouble(self) -> str:
        """Why it cannot be counted; empty when it can."""
        return self.error or ("" if self.text else "empty")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(data["name"], data["begun"], [tuple(p) for p in data["pieces"]], data["error"])
