"""Rounds: in each one every contender bears every load, in an order that turns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.many import neighbours
from bench.many.cells import Cell, measure
from bench.many.contenders import SERIAL, Contender
from bench.many.conversations import Size, conversations
from bench.many.jobs import Job

FEWEST = 4  # conversations, however few the clients
SERIAL_UP_TO = 32  # clients; an app that answers one at a time is as fast with more of them
TRIES = 3  # measurements of all contenders under one load when other programs disturb one


@dataclass(slots=True)
class Results:
    """cells[clients][contender]: one for each round, in their order."""

    cells: dict[int, dict[str, list[Cell]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def add(self, clients: int, cell: Cell) -> None:
        self.cells[clients][cell.contender].append(cell)


def job(clients: int, size: Size, *, label: str) -> Job:
    """A closed loop: at least one conversation for each client."""
    talks = conversations(max(clients, FEWEST), size, label=f"{label}-{clients}")
    return Job(talks, max_tokens=size.answer, clients=clients)


def rotated(contenders: Sequence[Contender], by: int) -> Iterator[Contender]:
    """All of them, another one first each time."""
    at = by % len(contenders)
    yield from contenders[at:]
    yield from contenders[:at]


def warm_up(contenders: Sequence[Contender], size: Size) -> None:
    """Short and long prompts; nobody's first request is measured."""
    for contender in contenders:
        measure(contender, job(FEWEST, size, label="warm"), size.count)


def measure_round(
    contenders: Sequence[Contender],
    number: int,
    clients: Sequence[int],
    size: Size,
    *,
    patience: float,
) -> Iterator[tuple[int, Cell]]:
    """Each load for each contender, as it is done."""
    for at, several in enumerate(clients):
        turn = [one for one in rotated(contenders, number + at) if bears(one, several)]
        for attempt in range(TRIES):
            # Others than before: what was asked already may be kept somewhere.
            load = job(several, size, label=f"round{number}{'abc'[attempt]}")
            cells = [undisturbed(one, load, size, patience=patience) for one in turn]
            if not patience or all(cell.others <= neighbours.QUIET for cell in cells):
                break
        yield from ((several, cell) for cell in cells)


def bears(contender: Contender, clients: int) -> bool:
    """Whether it is worth the minutes that this load takes it."""
    return contender.name != SERIAL or clients <= SERIAL_UP_TO


def undisturbed(contender: Contender, load: Job, size: Size, *, patience: float) -> Cell:
    """Measured after waiting so long for a quiet machine; it need not stay quiet."""
    neighbours.wait_for_quiet(patience)
    return measure(contender, load, size.count)
