"""The C library's heap, which keeps what was freed between two things that are still there.

Weights are read and packed one after the other, and each leaves a hole of its size: half a
gigabyte for the demo model (docs/decisions/0021).
"""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Give whole pages that are free to the system, where the C library is glibc."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
