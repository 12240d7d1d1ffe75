"""The ceiling: this project's engine with no server around it, one asyncio task per answer."""

from __future__ import annotations

import argparse
import time

from bench.many.answers import Answer
from bench.many.jobs import Job, serve
from bench.many.pace import Ask
from bench.many.pace import Turn as Said
from modelhost.engine import Engine
from modelhost.host import Host
from modelhost.types import ModelSpec, Sampling, Turn

OWNER = "bench"  # one, as over HTTP, so that what an owner's answers share is shared here, too


def in_process(engine: Engine, job: Job) -> Ask:
    """Asks the engine."""

    async def one(name: str, turns: list[Said]) -> Answer:
        answer = Answer(name, time.perf_counter())
        rendered = engine.render(
            [Turn(turn["role"], turn["content"]) for turn in turns], max_tokens=job.max_tokens
        )
        ticket = engine.submit(rendered.token_ids, Sampling(max_tokens=job.max_tokens), owner=OWNER)
        async for piece in ticket:
            if piece.text:
                answer.pieces.append((time.perf_counter(), piece.text))
        answer.error = ticket.finish.error if ticket.finish else "no finish"
        return answer

    return one


def main() -> None:
    """Load, then do jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    spec = ModelSpec(model=options.model, device=options.device, dtype=options.dtype)
    host = Host()  # loads on a thread that ends, as in the server: threads that stay cost speed
    host.start(spec)
    engine = host.wait()
    serve(lambda job: in_process(engine, job))
    host.unload()


if __name__ == "__main__":
    main()
