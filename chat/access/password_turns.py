"""Passwords are checked one at a time, and after a wrong one the processor has a rest.

A hash is made to be slow: a quarter of a second of a core, for anybody who sends a name and a
password. Thirty clients that did so all the time left an engine on two cores next to nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chat.limits.readers import Readers, TooManyStreams
from chat.limits.request_slots import alone, hold_nothing

MOST_WAITING = 8
MOST_OF_ONE = 2  # of one address or person, one of which is looked at: else one has all places
REST = 4.0  # in times of what a wrong password took: checks use a fifth of a core at most


class TooManyLogIns(Exception):
    """So many wait to have their passwords looked at that one more would wait for long."""


class PasswordTurns:
    """The turns of one process."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._places = Readers(lambda: (MOST_WAITING + 1, MOST_OF_ONE), "passwords")
        self._turn = threading.Lock()
        self._rest_until = 0.0

    @contextmanager
    def taken(self, caller: str) -> Iterator[None]:
        """Wait for the turn and have it; what is raised inside is taken for a wrong password.

        caller: the address, or the person, that it comes from. Raises TooManyLogIns.
        """
        try:
            leave = self._places.enter(caller)
        except TooManyStreams as error:
            raise TooManyLogIns from error
        try:
            with alone(self._turn):
                self._rest()
                begun = self._clock()
                try:
                    yield
                except Exception:
                    ended = self._clock()
                    self._rest_until = ended + REST * (ended - begun)
                    raise
        finally:
            leave()

    def _rest(self) -> None:
        seconds = max(0.0, self._rest_until - self._clock())
        if seconds:
            hold_nothing()
        self._sleep(seconds)


password_turns = PasswordTurns()
