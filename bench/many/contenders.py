"""What is measured: three servers under one load generator, and the engine alone."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from bench.many.jobs import Done, Job, Target, read, write
from bench.many.processes import Program
from bench.many.servers import SERVERS, Launch, Server, Setup, ready, start

CEILING = "engine alone"
OURS = "llmsite"
SERIAL = "tutorial"
NAMES = (OURS, "transformers serve", SERIAL, CEILING)  # in every table


@dataclass(frozen=True, slots=True)
class Contender:
    """A program under a load that a worker puts on it; the two may be one process."""

    name: str
    program: Program
    worker: Program
    target: Target | None

    def do(self, job: Job) -> Done:
        """Blocks until every answer is there."""
        return read(self.worker.ask(write(replace(job, target=self.target))))

    @contextmanager
    def awake(self) -> Iterator[None]:
        """It runs only while this lasts."""
        self.program.resume()
        try:
            yield
        finally:
            self.program.pause()


@contextmanager
def contenders(setup: Setup, *, without: Collection[str] = ()) -> Iterator[list[Contender]]:
    """All of them but some, started one after the other and paused."""
    with ExitStack() as stack:
        generator = worker("bench.many.generator", [], setup)
        stack.callback(generator.stop)
        found = []
        launches = [launch_of(setup) for launch_of in SERVERS]
        for launch in (one for one in launches if one.name not in without):
            server = stack.enter_context(running(launch, setup))
            found.append(remote(server, generator))
            server.program.pause()
        where = ["--device", setup.device, "--dtype", setup.dtype]
        engine = worker("bench.many.ceiling", [str(setup.model), *where], setup)
        stack.callback(engine.stop)
        found.append(Contender(CEILING, engine, engine, None))
        yield found


@contextmanager
def running(launch: Launch, setup: Setup) -> Iterator[Server]:
    """A server, ready, stopped at the end."""
    server = start(launch, setup)
    try:
        yield ready(server)
    finally:
        server.program.stop()


def remote(server: Server, generator: Program) -> Contender:
    """A server under the load generator."""
    return Contender(server.launch.name, server.program, generator, server.target)


def worker(module: str, arguments: list[str], setup: Setup) -> Program:
    """A process that takes jobs."""
    return Program(
        [sys.executable, "-m", module, *arguments],
        log=setup.workspace / f"{module}.log",
        environment=setup.environment,
        talks=True,
    )
