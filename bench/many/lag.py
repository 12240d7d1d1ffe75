"""Whether anybody else is served while a long prompt is tokenized and prefilled."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from bench.many.answers import Answer
from bench.many.cells import percentile
from bench.many.contenders import Contender
from bench.many.conversations import Size, conversation
from bench.many.exchange import exchange
from bench.many.jobs import Target
from bench.many.tables import table
from bench.many.wires import ask

LENGTH = 1500
EVERY = 0.01  # seconds between probes
PROBES = {"llmsite": "/healthz"}
OTHER = "/health"
TIMES = 3


def compare(contenders: Sequence[Contender], size: Size) -> list[str]:
    """Latency of a health check, idle and while others wait for a long prompt's first token."""
    rows = []
    for contender in contenders:
        target = contender.target
        if target is None:
            continue
        path = PROBES.get(contender.name, OTHER)
        with contender.awake(), undisturbed():
            idle = asyncio.run(probed(target, path, None, size))
            busy = [
                latency
                for number in range(TIMES)
                for latency in asyncio.run(probed(target, path, f"lag-{number}", size))
            ]
        rows.append([contender.name, *shown(idle), *shown(busy)])
    head = ["", "idle p50", "p99", "during the prefill p50", "p99", "longest"]
    said = f"Latency of a health check every {EVERY * 1000:.0f} ms beside a {LENGTH}-token prompt:"
    return [said, table(head, [row[:3] + row[4:] for row in rows])]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without this process's own garbage collector, whose pauses would pass for the server's.

    It looked at all that torch and transformers bring, for a quarter of a second.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def shown(latencies: Sequence[float]) -> list[str]:
    """p50, p99 and the longest, in ms."""
    values = [percentile(latencies, 0.5), percentile(latencies, 0.99), max(latencies)]
    return [f"{value * 1000:.1f} ms" for value in values]


async def probed(target: Target, path: str, name: str | None, size: Size) -> list[float]:
    """Latencies until the prompt's first token is there; without a prompt, for a second."""
    latencies: list[float] = []

    async def probe(due: float) -> None:
        await exchange(target.port, "GET", path)
        latencies.append(time.perf_counter() - due)

    waits: asyncio.Task[Answer | None] = asyncio.ensure_future(first_token(target, name, size))
    probes = []
    due = time.perf_counter()
    while not waits.done():
        probes.append(asyncio.ensure_future(probe(due)))
        due += EVERY
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waits), max(0.0, due - time.perf_counter()))
    await asyncio.gather(*probes)
    answer = await waits
    if answer is not None and answer.trouble:
        raise RuntimeError(f"the long prompt failed: {answer.trouble}")
    return latencies


async def first_token(target: Target, name: str | None, size: Size) -> Answer | None:
    """One token behind a long prompt."""
    if name is None:
        await asyncio.sleep(1.0)
        return None
    (text,) = conversation(name, size, tokens=LENGTH, turns=1).says
    return await ask(target, name, [{"role": "user", "content": text}], 1)
