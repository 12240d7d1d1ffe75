"""The end of a process at one exact step: a statement, or one side of a commit."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

KILLED = 9  # how such a process ends


class Countdown:
    """Ends the process just before its last step; counts over all threads."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._lock = threading.Lock()

    def watch(self) -> None:
        """From now on each statement of a connection made later is a step, BEGIN included."""
        commit = BaseDatabaseWrapper._commit

        def counted_commit(connection: Any) -> None:
            self._step()
            commit(connection)
            self._step()

        connection_created.connect(self._count_on, weak=False)
        BaseDatabaseWrapper._commit = counted_commit

    def _count_on(self, connection: Any, **_: Any) -> None:
        if self._execute not in connection.execute_wrappers:  # it was opened before
            connection.execute_wrappers.append(self._execute)

    def _execute(self, run: Callable[..., Any], *arguments: Any) -> Any:
        self._step()
        return run(*arguments)

    def _step(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os._exit(KILLED)
