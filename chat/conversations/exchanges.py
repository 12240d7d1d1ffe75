"""Resent histories, cut into exchanges, each with a name that says what led there.

A running hash over the turns names the response that a history ends in, so a history
that is known is found again by its name and not stored a second time.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from modelhost.types import Role, Turn


@dataclass(frozen=True, slots=True)
class Exchange:
    """Turns up to and including one assistant turn, and the name of the history that ends there.

    prompt_id, response_id: those of the rows that they become when they are none yet.
    """

    said: list[Turn]
    answer: Turn
    fingerprint: str
    prompt_id: UUID = field(default_factory=uuid.uuid4)
    response_id: UUID = field(default_factory=uuid.uuid4)


def extend_fingerprint(before: str, turns: Sequence[Turn]) -> str:
    """The name of a history that continues `before` with these turns (sha256, hex)."""
    said = [turn.as_json() for turn in turns]
    return hashlib.sha256(f"{before}\n{json.dumps(said, sort_keys=True)}".encode()).hexdigest()


def root_fingerprint(system: str) -> str:
    """The name of the empty history under a persona."""
    return extend_fingerprint("", [Turn(Role.SYSTEM, system)] if system else [])


def split_system(history: Sequence[Turn]) -> tuple[str, list[Turn]]:
    """The persona that a history begins with, and the turns after it."""
    texts: list[str] = []
    for turn in history:
        if turn.role != Role.SYSTEM:
            break
        texts.append(turn.content)
    return "\n".join(texts), list(history[len(texts) :])


def cut_exchanges(root: str, turns: Sequence[Turn]) -> tuple[list[Exchange], list[Turn]]:
    """Turns cut behind each assistant turn, and what follows the last one."""
    exchanges: list[Exchange] = []
    said: list[Turn] = []
    name = root
    for turn in turns:
        if turn.role != Role.ASSISTANT:
            said.append(turn)
            continue
        name = extend_fingerprint(name, [*said, turn])
        exchanges.append(Exchange(said, turn, name))
        said = []
    return exchanges, said
