"""What a process still holds when nothing is going on any more."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connection

from chat.lifecycle.supervisor import supervisor
from chat.limits.admission import admission
from llmsite.sqlite.base import pool
from modelhost.host import host


@dataclass(frozen=True)
class Remains:
    """Counts of all that a generation takes and has to give back.

    tickets: in the engine. running and lives: in the supervisor. places: of admission.
    tasks: on the server's event loop and the supervisor's. handles: of the database.
    """

    tickets: int
    running: int
    lives: int
    places: int
    tasks: int
    threads: int
    handles: int

    @classmethod
    def now(cls) -> Remains:
        """A look at this process."""
        gc.collect()  # what only waits for the collector is not leaked
        return cls(
            tickets=host.engine().active,
            running=supervisor.active,
            lives=len(supervisor._lives.all()),
            places=admission.total.requests,
            tasks=len(supervisor._tasks) + served_tasks(),
            threads=threading.active_count(),
            handles=database_handles(),
        )

    def beyond(self, other: Remains) -> dict[str, int]:
        """Where there is more of something than at another time, and how much."""
        ours, theirs = self.__dict__, other.__dict__
        return {name: ours[name] - theirs[name] for name in ours if ours[name] > theirs[name]}


def served_tasks() -> int:
    """Tasks of requests on daphne's event loop."""
    from twisted.internet import reactor

    loop: Any = reactor
    return len(asyncio.all_tasks(loop._asyncioEventloop))


def database_handles() -> int:
    """Open files of SQLite in this process, or connections that its pool to PostgreSQL lent out."""
    if connection.vendor == "postgresql":
        stats = connection.pool.get_stats()
        return stats["pool_size"] - stats["pool_available"]
    pool.empty()  # what is kept is nobody's
    name = Path(connection.settings_dict["NAME"]).name
    return sum(link.startswith(name) for link in open_files())


def open_files() -> list[str]:
    """Names of the files that this process has open."""
    names = []
    for handle in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with suppress(OSError):  # closed by now
            names.append(Path(f"/proc/self/fd/{handle}").readlink().name)
    return names
