"""A path through a conversation, turn by turn, as a transcript shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from chat.admin.cells import call_texts
from chat.admin.versions import Version, Versions
from chat.conversations.trails import trail
from chat.models import Prompt, Response
from modelhost.types import Role


@dataclass(frozen=True, slots=True)
class Entry:
    """One turn. response: its row, for a turn that was generated here.

    versions: of the row and of those in its place, when there is more than one.
    """

    role: str
    text: str
    calls: list[str] = field(default_factory=list)
    at: datetime | None = None
    by_client: bool = False
    response: Response | None = None
    versions: list[Version] = field(default_factory=list)

    @property
    def others(self) -> int:
        """How many other versions there are."""
        return max(0, len(self.versions) - 1)


def entries(leaf: Response | None, versions: Versions) -> list[Entry]:
    """The turns from the conversation's beginning to this response."""
    result: list[Entry] = []
    for row in trail(leaf):
        *before, last = _entries_of(row)
        result += [*before, replace(last, versions=versions.of(row))]
    return result


def _entries_of(row: Prompt | Response) -> Iterator[Entry]:
    if isinstance(row, Response):
        yield _of_response(row)
        return
    for turn in row.earlier:
        yield _of_turn(turn)
    if row.content or row.role == Role.TOOL or not row.earlier:
        yield Entry(row.role, row.content, at=row.created_at)


def _of_response(row: Response) -> Entry:
    return Entry(
        Role.ASSISTANT,
        row.text,
        call_texts(row.tool_calls),
        at=None if row.imported else row.finished_at,
        by_client=row.imported,
        response=None if row.imported else row,
    )


def _of_turn(turn: Mapping[str, Any]) -> Entry:
    calls = call_texts(turn.get("tool_calls", ()))
    return Entry(turn["role"], turn.get("content", ""), calls, by_client=True)
