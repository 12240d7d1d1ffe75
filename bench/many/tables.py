"""The figures as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from bench.many.cells import Cell, percentile, pooled
from bench.many.contenders import CEILING, NAMES, OURS
from bench.many.rounds import Results
from bench.many.truth import objections, shortened, troubles

SIDES = ("tokens/s", "seconds to the first piece (median)", "CPU seconds per 1,000 tokens")
FIGURES: tuple[Callable[[Cell], float], ...] = (
    lambda cell: cell.rate,
    lambda cell: cell.first,
    lambda cell: cell.cpu_per_thousand,
)


def order(one: tuple[str, list[Cell]]) -> int:
    """Ours first."""
    return NAMES.index(one[0])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the smallest and largest where there are several."""
    low, middle, high = min(values), statistics.median(values), max(values)
    around = f" ({low:.{digits}f}–{high:.{digits}f})" if len(values) > 1 else ""
    return f"{middle:.{digits}f}{around}"


def figures(results: Results) -> str:
    """Everything that was measured, a line for each load and contender."""
    head = [
        *("clients", "", "tokens/s", "first piece p50", "p95", "next piece p95"),
        *("CPU s / 1,000 tokens", "peak memory", "client's CPU", "others", "troubles"),
    ]
    rows = [
        [str(clients), name, *line(cells)]
        for clients, by_name in results.cells.items()
        for name, cells in sorted(by_name.items(), key=order)
    ]
    return table(head, rows)


def line(cells: Sequence[Cell]) -> list[str]:
    """One contender under one load."""
    firsts, gaps = pooled(cells, lambda c: c.firsts), pooled(cells, lambda c: c.gaps)
    return [
        spread([cell.rate for cell in cells], 1),
        f"{percentile(firsts, 0.5):.2f} s",
        f"{percentile(firsts, 0.95):.2f} s",
        f"{percentile(gaps, 0.95) * 1000:.0f} ms",
        spread([cell.cpu_per_thousand for cell in cells], 1),
        f"{max(cell.peak for cell in cells) / 1e6:.0f} MB",
        f"{statistics.median(cell.client_cpu for cell in cells):.2f} s",
        f"{max(cell.others for cell in cells):.0%}",
        str(sum(len(troubles(cell)) for cell in cells)),
    ]


def ratios(results: Results) -> tuple[str, list[str]]:
    """Ours beside each other one, round by round; and why some rounds have none."""
    rows, notes = [], []
    for clients, by_name in results.cells.items():
        for name, theirs in sorted(by_name.items(), key=order):
            if name == OURS:
                continue
            row, refused = ratio(by_name[OURS], theirs)
            rows.append([str(clients), f"llmsite / {name}", *row])
            notes += [f"{clients} clients, {one}" for one in refused]
    return table(["clients", "", *SIDES, "rounds"], rows), notes


def ratio(ours: Sequence[Cell], theirs: Sequence[Cell]) -> tuple[list[str], list[str]]:
    """Over the rounds in which both gave the same answers; refused for the others."""
    refused = [
        f"round {number}: {objection}"
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True), 1)
        for objection in shortened(objections([one], [other]))
    ]
    sound = comparable(ours, theirs)
    if not sound:
        return ["refused"] * len(SIDES) + [f"0 of {len(ours)}"], refused
    sides = [spread([figure(a) / figure(b) for a, b in sound]) for figure in FIGURES]
    return [*sides, f"{len(sound)} of {len(ours)}"], refused


def comparable(ours: Sequence[Cell], theirs: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """The rounds in which both gave the same answers."""
    pairs = zip(ours, theirs, strict=True)
    return [(one, other) for one, other in pairs if not objections([one], [other])]


def share_of_ceiling(results: Results) -> str:
    """One sentence, of the rounds with the same answers."""
    shares = []
    for clients, by_name in results.cells.items():
        rates = [a.rate / b.rate for a, b in comparable(by_name[OURS], by_name[CEILING])]
        share = f"{statistics.median(rates):.0%}" if rates else "refused"
        shares.append(f"{share} at {clients}")
    return f"Of the engine's own speed arrive over HTTP, at so many clients: {', '.join(shares)}."
