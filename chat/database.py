"""What the database's trouble means, for callers and for the log.

Whether it has what this version needs, and which errors are the whole database's and neither a
request's nor a row's: those pass, and whoever comes back is served.
"""

from __future__ import annotations

from collections.abc import Callable
from time import sleep
from typing import TypeVar

from django.db import (
    DEFAULT_DB_ALIAS,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connections,
)
from django.db.migrations.executor import MigrationExecutor

from chat.limits.request_slots import request_slots

Made = TypeVar("Made")

SILENT = "The database does not answer."
READ_ONLY = "The database takes nothing at the moment."
OUTDATED = "The database is not prepared for this version of the service."

# PostgreSQL's names (https://www.postgresql.org/docs/current/errcodes-appendix.html) of what is no
# OperationalError there: a standby or a primary that steps down, a table or column that is missing.
STATES = {"25006": READ_ONLY, "42P01": OUTDATED, "42703": OUTDATED}

PAUSE, TRIES = 0.05, 100  # seconds until a row that somebody else has is tried again; how often

LOCKED = ("55P03", "40P01")  # a lock that is not there at once, or of which two wait for each other

SQLITE_LACKS = ("no such table", "no such column", "has no column named")


def outage(error: Exception) -> str | None:
    """A sentence for callers where the database as a whole is the reason; None where it is not."""
    if isinstance(error, OperationalError | InterfaceError):
        return OUTDATED if any(words in str(error) for words in SQLITE_LACKS) else SILENT
    if isinstance(error, InternalError | ProgrammingError):
        return STATES.get(getattr(error.__cause__, "sqlstate", ""))
    return None


def is_locked(error: Exception) -> bool:
    """Whether another session had the row, so that the same may work in a moment."""
    return getattr(error.__cause__, "sqlstate", "") in LOCKED


def when_unlocked(work: Callable[[], Made]) -> Made:
    """What a transaction returns that takes rows of responses under way, and waits for none.

    The recorder writes many of these in one transaction, in an order of its own: who waited for
    one of them and had another would lock out both (PostgreSQL). So it is tried again from its
    beginning. Raises OperationalError where another session keeps a row.
    """
    for left in reversed(range(TRIES)):
        try:
            return work()
        except OperationalError as error:
            if not left or not is_locked(error):
                raise
        request_slots.release()
        sleep(PAUSE)
    raise AssertionError("the last try returns or raises")


def missing_migrations() -> list[str]:
    """What this version needs and the database has not been given, in order.

    Raises django.db.Error where the database cannot be asked.
    """
    executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]
