"""Code of others that must come to an end: chat templates."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in what this thread computes, after so many seconds of the processor.

    They are the thread's own, so a busy machine takes nothing away. Each line of Python is looked
    at, which makes it several times slower; a single step of the interpreter is not interrupted.
    """
    end = time.thread_time() + seconds

    def look(frame: FrameType, event: str, argument: object) -> Any:
        if time.thread_time() > end:
            raise TimeoutError(f"it has not come to an end after {seconds:g} s")
        return look

    previous = sys.gettrace()
    sys.settrace(look)
    try:
        yield
    finally:
        sys.settrace(previous)
