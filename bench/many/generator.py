"""The load generator, a process of its own: asks servers over HTTP."""

from __future__ import annotations

from bench.many.answers import Answer
from bench.many.jobs import Job, serve
from bench.many.pace import Ask, Turn
from bench.many.wires import ask


def over_http(job: Job) -> Ask:
    """Asks the job's server."""
    target = job.target
    if target is None:
        raise ValueError("a job for the load generator names a server")

    async def one(name: str, turns: list[Turn]) -> Answer:
        return await ask(target, name, turns, job.max_tokens)

    return one


if __name__ == "__main__":
    serve(over_http)
