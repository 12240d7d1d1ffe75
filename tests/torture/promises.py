"""What must hold after any crash, as sentences about what does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tests.torture.store import ACTIVE, Row
from tests.torture.witness import witness_text
from tests.torture.writer import Asked


def unfinished(rows: Iterable[Row]) -> list[str]:
    """Responses that have no outcome."""
    return [f"{row.name} is {row.status}" for row in rows if row.status in ACTIVE]


def broken(asked: Sequence[Asked], rows: Sequence[Row]) -> list[str]:
    """Every broken promise between what clients were told and what is stored."""
    stored = {row.id: row for row in rows}
    faults = [f"{name} is there {count} times" for name, count in doubled(rows)]
    for one in asked:
        row = stored.get(one.reading.message_id)
        faults += [f"{one.name}: {fault}" for fault in one.reading.faults + one.refused]
        if row is None and one.reading.message_id:
            faults.append(f"{one.name} was acknowledged and is lost")
        elif row is not None:
            faults += differences(one, row)
    return faults + list(wrong(rows))


def doubled(rows: Iterable[Row]) -> list[tuple[str, int]]:
    """Prompts with more than one response."""
    return [item for item in Counter(row.prompt for row in rows).items() if item[1] > 1]


def differences(asked: Asked, row: Row) -> Iterator[str]:
    """Where what the client read is not what the row says."""
    if not row.text.startswith(asked.reading.text):
        yield f"{asked.name} saw {asked.reading.text!r} of {row.text!r}"
    if asked.over and asked.returns and asked.reading.text != row.text:
        yield f"{asked.name} read to the end and has {asked.reading.text!r} of {row.text!r}"
    if asked.reading.end == "error":
        yield f"{asked.name} ended with {asked.reading.problem}"


def wrong(rows: Iterable[Row]) -> Iterator[str]:
    """Responses that ended and are not the only right answer."""
    for row in rows:
        if row.status == "done" and row.text != witness_text(row.name, row.seed, row.words):
            yield f"{row.name} says {row.text!r}"
        elif row.status not in (*ACTIVE, "done"):
            yield f"{row.name} is {row.status}: {row.error}"
