"""How each server is started: what its own documentation says, nothing tuned."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bench.many.jobs import Target
from bench.many.processes import Program, free_port, wait_until_ready


@dataclass(frozen=True, slots=True)
class Setup:
    """What all servers share. workspace: for logs and data. threads: of torch, in each process."""

    model: Path
    device: str
    workspace: Path
    threads: int
    dtype: str = "float32"

    @property
    def environment(self) -> dict[str, str]:
        """The same for everybody."""
        threads = str(self.threads)
        return {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }


@dataclass(frozen=True, slots=True)
class Launch:
    """One server's command, with {port} where its port goes.

    alive: a path that says that it listens. ready: one that says that it can answer.
    """

    name: str
    wire: str
    command: list[str]
    alive: str
    ready: str
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs, and how it is spoken to."""

    launch: Launch
    program: Program
    target: Target


def llmsite(setup: Setup) -> Launch:
    """This project with everything on: keys, rows in SQLite, cursors."""
    data = tempfile.mkdtemp(prefix="data-", dir=setup.workspace)
    return Launch(
        "llmsite",
        "openai",
        [sys.executable, "manage.py", "serve", "--port", "{port}"],
        alive="/healthz",
        ready="/readyz",
        environment={
            "LLMSITE_DATA": data,
            "LLMSITE_MODEL": str(setup.model),
            "LLMSITE_DEVICE": setup.device,
            "LLMSITE_DTYPE": setup.dtype,
        },
    )


def transformers(setup: Setup) -> Launch:
    """The server that comes with transformers, batching continuously."""
    # Its console script, wherever that was installed.
    program = [sys.executable, "-c", "from transformers.cli.transformers import main; main()"]
    command = [*program, "serve", str(setup.model), "--continuous-batching"]
    where = ["--device", setup.device, "--dtype", setup.dtype]
    address = ["--host", "127.0.0.1", "--port", "{port}"]
    name = "transformers serve"
    return Launch(name, "openai", [*command, *where, *address], "/health", "/health")


def tutorial(setup: Setup) -> Launch:
    """One `generate` at a time."""
    command = [sys.executable, "-m", "bench.tutorial", str(setup.model), "--port", "{port}"]
    where = ["--device", setup.device, "--dtype", setup.dtype]
    return Launch("tutorial", "tutorial", [*command, *where], "/health", "/health")


SERVERS = (llmsite, transformers, tutorial)


def start(launch: Launch, setup: Setup) -> Server:
    """Start it; returns at once."""
    port = free_port()
    program = Program(
        [part.format(port=port) for part in launch.command],
        log=setup.workspace / f"{port}.log",
        environment={**setup.environment, **launch.environment},
    )
    return Server(launch, program, Target(port, launch.wire, str(setup.model)))


def ready(server: Server) -> Server:
    """Wait until it can answer; with its key, where it gave one."""
    wait_until_ready(server.program, server.target.port, server.launch.ready)
    return Server(server.launch, server.program, with_key(server))


def with_key(server: Server) -> Target:
    """The target with the API key that the server printed on its first start."""
    found = re.search(r"API key +(\S+)", server.program.log.read_text())
    was = server.target
    return Target(was.port, was.wire, was.model, found[1] if found else was.key)
