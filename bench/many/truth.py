"""Whether servers did the same work: a ratio between different answers says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from bench.many.cells import Cell

SHOWN = 3  # troubles named; the others are counted


def troubles(cell: Cell) -> list[str]:
    """Answers that failed or are empty."""
    found = [f"{a.name}: {a.trouble}" for a in cell.answers if a.trouble]
    return [f"{cell.contender} {one}" for one in found]


def differences(one: Cell, other: Cell) -> list[str]:
    """Answers that two cells of one round do not share, and where they part."""
    theirs = {answer.name: answer.text for answer in other.answers}
    found = []
    for answer in one.answers:
        text = theirs.pop(answer.name, None)
        if text is None:
            found.append(f"{answer.name}: {other.contender} was not asked")
        elif text != answer.text:
            shared = alike(text, answer.text)
            found.append(
                f"{answer.name} parts after {shared} characters: {one.contender} "
                f"{answer.text[shared : shared + 20]!r}, {other.contender} "
                f"{text[shared : shared + 20]!r}"
            )
    return found + [f"{name}: {one.contender} was not asked" for name in theirs]


def alike(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def objections(ours: Sequence[Cell], peers: Sequence[Cell]) -> list[str]:
    """Why there is no ratio between these, round by round; nothing when there may be one."""
    found = []
    for one, other in zip(ours, peers, strict=True):
        found += troubles(one) + troubles(other) or differences(one, other)
    return found


def shortened(found: Sequence[str]) -> list[str]:
    """The first few, and how many more there are."""
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return [*found[:SHOWN], *more]
