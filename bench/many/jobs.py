"""A load to put on something, handed to the process that does it as one line of JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from bench.many.answers import Answer
from bench.many.conversations import Conversation
from bench.many.pace import Ask, arriving, closed


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server listens, and how it is spoken to: the name of a wire in `wires`."""

    port: int
    wire: str
    model: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """Conversations for so many clients or, where a rate is given, for arrivals per second.

    target: the server; None for a process that has the engine itself.
    """

    conversations: list[Conversation]
    max_tokens: int
    clients: int = 1
    rate: float = 0.0
    target: Target | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        talks = [Conversation(one["name"], tuple(one["says"])) for one in data["conversations"]]
        target = Target(**data["target"]) if data["target"] else None
        return cls(**{**data, "conversations": talks, "target": target})


@dataclass(frozen=True, slots=True)
class Done:
    """The answers to a job, the seconds it took, and the CPU seconds of the process that did it."""

    answers: list[Answer]
    seconds: float
    cpu: float


def do(job: Job, ask: Ask) -> Done:
    """Blocks until every answer is there."""
    if job.rate:
        work = arriving(ask, job.conversations, job.rate)
    else:
        work = closed(ask, job.conversations, job.clients)
    gc.collect()
    begun, cpu = time.perf_counter(), time.process_time()
    answers = asyncio.run(work)
    return Done(answers, time.perf_counter() - begun, time.process_time() - cpu)


def serve(ask_for: Callable[[Job], Ask]) -> None:
    """A process's whole life: jobs from standard input, answers to standard output."""
    for line in sys.stdin:
        done = do(job := Job.from_json(json.loads(line)), ask_for(job))
        print(json.dumps(asdict(done)), flush=True)


def read(line: str) -> Done:
    """What `serve` wrote."""
    data = json.loads(line)
    return Done([Answer.from_json(one) for one in data["answers"]], data["seconds"], data["cpu"])


def write(job: Job) -> str:
    """What `serve` reads."""
    return json.dumps(asdict(job)) + "\n"
