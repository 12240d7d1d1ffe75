"""Waiting for an end that no event announces, and saying in words what has not ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sized

PAUSE = 0.01  # seconds between looks


def until_none(look: Callable[[], Sized], complaint: str, *, seconds: float) -> None:
    """Return as soon as `look` finds nothing; what is there after `seconds` is the complaint's."""
    pause, deadline = threading.Event(), time.monotonic() + seconds
    while found := look():
        assert time.monotonic() < deadline, f"{complaint}: {found}"
        pause.wait(PAUSE)
