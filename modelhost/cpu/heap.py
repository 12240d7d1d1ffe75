"""The C library's heap, which keeps memory that was freed between blocks still in use.

Weights are read and packed one after the other, and each leaves a hole of its size: half a
gigabyte for the demo model (docs/decisions/0021).

And it keeps a heap, an "arena", for each thread that wants one, up to eight for a processor. A
server has a thread for every request, so each grows to the most that any request ever needed.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

M_ARENA_MAX = -8  # of glibc's malloc.h; see mallopt(3)


def give_back() -> None:
    """Give whole pages that are free to the system, where the C library is glibc."""
    if library := _glibc("malloc_trim"):
        library.malloc_trim(0)


def share() -> None:
    """From now on no thread gets a heap of its own, where the C library is glibc.

    Python runs one thread at a time, so they seldom wait for one another. In ten minutes at 32
    clients the process then grows by 2 MB instead of 25; docs/figures.md.
    """
    if library := _glibc("mallopt"):
        library.mallopt(M_ARENA_MAX, 1)


def _glibc(function: str) -> Any:
    """The C library, if it has this function; None for another one."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), function):
        return library
    return None
