"""SQLite's connections, kept when they are closed and used again by whichever thread is next.

Every request has a thread of its own, and the recorder needs a connection eleven times a second,
each for some milliseconds. To open one takes Python almost a millisecond: sixty functions are
registered and six PRAGMAs run. To close the last one folds the write-ahead log into the database,
with more syncs of the disk. PostgreSQL has a pool for this (`LLMSITE_DATABASE_POOL`), Django's
SQLite has none; docs/decisions/0023.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.db.backends.sqlite3 import base

KEPT = 4  # connections, with at most 2 MB of pages each; Python runs one thread at a time

File = tuple[str, int, int]  # path, device, inode: a database that is made anew is another one


class Pool:
    """Open connections that nobody uses now, none of them inside a transaction.

    SQLite leaves the file of a closed connection open while another connection to it is open
    (https://www.sqlite.org/src/file?name=src/os_unix.c, `setPendingFd`): a burst would cost
    handles for ever. So when some were closed, all are as soon as nobody uses one; and once more
    where somebody opened one meanwhile.

    None may be used, or closed, in a process that was forked from the one that opened it
    (https://www.sqlite.org/howtocorrupt.html, section 2.6).
    """

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: list[tuple[File, Any]] = []
        self._inherited: list[tuple[File, Any]] = []
        self._lent = 0
        self._taken = 0  # how often one was lent
        self._some_were_closed = False

    def take(self, file: File | None) -> Any | None:
        """One to this file, if there is one; else the caller opens it. Comes back by `put`."""
        with self._lock:
            self._lent += 1
            self._taken += 1
            at = next((at for at, (of, _) in enumerate(self._kept) if of == file), None)
            return None if at is None else self._kept.pop(at)[1]

    def put(self, file: File | None, connection: Any, *, clean: bool) -> None:
        """Keep it, unless there are enough; one that is not clean is closed."""
        keep = False
        with self._lock:
            if clean and file is not None and len(self._kept) < self._most:
                self._kept.append((file, connection))
                keep = True
        try:
            if not keep:
                connection.close()  # before it counts as back: who tidies up must find it closed
        finally:
            with self._lock:
                self._lent -= 1
                self._some_were_closed = self._some_were_closed or not keep
                tidy = self._some_were_closed and not self._lent
        if tidy:
            self.empty()

    def failed(self) -> None:
        """What `take` had counted could not be opened."""
        with self._lock:
            self._lent -= 1

    def empty(self) -> None:
        """Close what is kept: the files are whole and closed afterwards, if nobody uses one."""
        with self._lock:
            kept, self._kept, taken = self._kept, [], self._taken
        for _, connection in kept:
            connection.close()
        with self._lock:
            self._some_were_closed = self._lent > 0 or self._taken != taken

    def end(self) -> None:
        """Keep none from now on: the process ends."""
        self._most = 0
        self.empty()

    def forget(self) -> None:
        """In a fork's child: the connections are the parent's, and stay open here unused."""
        self._inherited += self._kept
        self._kept, self._lent, self._lock = [], 0, threading.Lock()


class DatabaseWrapper(base.DatabaseWrapper):
    """A thread's handle, as Django knows it."""

    _file: File | None = None

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """A kept one, else a new one."""
        path = conn_params["database"]
        self._file = file_of(path)
        if (connection := pool.take(self._file)) is not None:
            return connection
        if self._file is None:
            make_private(str(path))
        try:
            connection = super().get_new_connection(conn_params)
        except BaseException:
            pool.failed()
            raise
        self._file = file_of(path)
        return connection

    def _close(self) -> None:
        """Give it back. It is not clean inside a transaction, or when something went wrong."""
        connection: Any = self.connection
        if connection is not None:
            with self.wrap_database_errors:
                clean = not (self.errors_occurred or connection.in_transaction)
                pool.put(self._file, connection, clean=clean)


def make_private(path: str) -> None:
    """A database that is not there yet, for its owner alone: every prompt will be in it.

    SQLite gives its log beside it the same rights (https://www.sqlite.org/src/file?name=src/os_unix.c,
    `findCreateFileMode`). What cannot be made is SQLite's to say.
    """
    if not path.startswith((":memory:", "file:")):
        with suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def file_of(path: str | os.PathLike[str]) -> File | None:
    """Which file that is now; None for one that is not there, and for a database in memory."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return str(path), status.st_dev, status.st_ino


pool = Pool()
os.register_at_fork(after_in_child=lambda: pool.forget())  # whichever it is by then
