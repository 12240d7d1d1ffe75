"""The second turn of a conversation of 1,000 tokens, which the first one has computed already."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.many.answers import Answer
from bench.many.cells import measure
from bench.many.contenders import Contender
from bench.many.conversations import Size, conversation
from bench.many.jobs import Job
from bench.many.tables import table

LENGTH = 1000
TIMES = 3


def compare(contenders: Sequence[Contender], size: Size) -> list[str]:
    """Seconds to the first piece in the first and in the second turn, medians."""
    talks = [
        conversation(f"turns-{number}", size, tokens=LENGTH, turns=2) for number in range(TIMES)
    ]
    rows = []
    for contender in contenders:
        cell = measure(contender, Job(talks, max_tokens=size.answer), size.count)
        rows.append(row(contender.name, cell.answers))
    said = f"Two turns, the first prompt has {LENGTH} tokens; one client, median of {TIMES}:"
    head = ["", "first piece, first turn", "second turn", "second / first"]
    return [said, table(head, rows)]


def row(name: str, answers: Sequence[Answer]) -> list[str]:
    """One contender's; refused when one of its answers is none."""
    if any(answer.trouble for answer in answers):
        return [name, "refused", "refused", "refused"]
    first, second = (median(answers, f".{turn}") for turn in (1, 2))
    return [name, f"{first:.2f} s", f"{second:.2f} s", f"{second / first:.2f}"]


def median(answers: Sequence[Answer], turn: str) -> float:
    """Of the answers of one turn."""
    return statistics.median(a.seconds_to_first for a in answers if a.name.endswith(turn))
