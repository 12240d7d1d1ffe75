"""What is measured is the server's latency, not that of the one who measures."""

from __future__ import annotations

import gc

from bench.many.lag import undisturbed


def test_who_measures_does_not_stop_to_collect_garbage():
    pauses: list[str] = []

    def paused(phase: str, _: dict[str, int]) -> None:
        pauses.append(phase)

    with undisturbed():
        gc.callbacks.append(paused)
        kept = [[] for _ in range(100_000)]
        gc.callbacks.remove(paused)

    assert pauses == []
    assert len(kept) == 100_000
    assert gc.isenabled()
