"""Long prompts are made into tokens one at a time.

A megabyte of text takes a quarter of a gigabyte and a second or two meanwhile, also when it is
refused as too long for the model: a hundred at once took all the memory of a machine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from chat.limits.admission import limits
from chat.limits.readers import Readers
from chat.limits.request_slots import alone

LONG = 100_000  # characters; what is shorter takes a tenth of a second and waits for nobody


class LongPrompts:
    """The turns of one process. As many wait as may be answered at once."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._waiting = Readers(_most, "long prompts")

    @contextmanager
    def in_turn(self, characters: int, caller: str) -> Iterator[None]:
        """Wait for the turn of a prompt with so many. Raises TooManyStreams."""
        if characters < LONG:
            yield
            return
        leave = self._waiting.enter(caller)
        try:
            with alone(self._turn):
                yield
        finally:
            leave()


def _most() -> tuple[int, int]:
    everybody, one = limits()
    return everybody.requests, one.requests


long_prompts = LongPrompts()
