"""The recorder's thread, with a connection to the database that no request can take.

While a table is locked, requests that wait for it hold every connection of the pool: nothing would
be written, leases would run out, and other processes would generate the same once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

OF_ONE = {"min_size": 0, "max_size": 1, "num_workers": 1}


@contextmanager
def recording_thread() -> Iterator[Executor]:
    """One thread for whatever is handed to it."""
    with ThreadPoolExecutor(1, thread_name_prefix="chat-recorder", initializer=_reserve) as thread:
        try:
            yield thread
        finally:
            thread.submit(_end)


def _reserve() -> None:
    """Give this thread a pool of its own, where there is one: it still knows what died."""
    shared: Any = connections[DEFAULT_DB_ALIAS]
    if not shared.settings_dict["OPTIONS"].get("pool"):
        return
    own = shared.copy()
    own._connection_pools = {}  # in place of the class's, which has one for all threads
    own.settings_dict["OPTIONS"]["pool"] |= OF_ONE
    connections[DEFAULT_DB_ALIAS] = own


def _end() -> None:
    own: Any = connections[DEFAULT_DB_ALIAS]
    if "_connection_pools" in vars(own):
        own.close()
        own.close_pool()
