"""The project's own route beside /v1: the same answers through POST /chat/new/message/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.many.cells import measure
from bench.many.contenders import Contender
from bench.many.conversations import Size
from bench.many.rounds import job
from bench.many.tables import SIDES, line, ratio, table

NAME = "/chat/new/message/"


def compare(ours: Contender, clients: Sequence[int], size: Size) -> list[str]:
    """Both routes once under each load; a table, and what differed."""
    if ours.target is None:
        raise ValueError("this contender has no routes")
    other = replace(ours, name=NAME, target=replace(ours.target, wire="own"))
    rows, notes = [], []
    for several in clients:
        load = job(several, size, label="route")
        measure(ours, load, size.count)  # so that both find the prompts computed already
        v1, own = measure(ours, load, size.count), measure(other, load, size.count)
        shares, refused = ratio([own], [v1])
        rows.append([str(several), *line([own])[:5], shares[0]])
        notes += [f"- {several} clients: {one}" for one in refused]
    head = ["clients", SIDES[0], "first piece p50", "p95", "next piece p95"]
    made = table([*head, "CPU s / 1,000 tokens", "tokens/s beside /v1"], rows)
    return [f"Through `POST {NAME}`, once:", made, *(["\n".join(notes)] if notes else [])]
