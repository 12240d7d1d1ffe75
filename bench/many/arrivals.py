"""An open loop: requests come at a rate, whether or not earlier ones are answered."""

from __future__ import annotations

from collections.abc import Sequence

from bench.many.cells import measure
from bench.many.contenders import CEILING, Contender
from bench.many.conversations import Size, conversations
from bench.many.jobs import Job
from bench.many.tables import line, table


def compare(contenders: Sequence[Contender], size: Size, *, rate: float, number: int) -> list[str]:
    """Each server once under the same arrivals: what comes at a rate shows no ceiling."""
    talks = conversations(number, size, label="arrivals")
    load = Job(talks, max_tokens=size.answer, rate=rate)
    servers = [one for one in contenders if one.name != CEILING]
    rows = [[one.name, *line([measure(one, load, size.count)])] for one in servers]
    head = ["", "tokens/s", "first piece p50", "p95", "next piece p95"]
    more = ["CPU s / 1,000 tokens", "peak memory", "client's CPU", "others", "troubles"]
    said = f"{number} conversations arriving at {rate:g} per second, at random, once:"
    return [said, table([*head, *more], rows)]
