"""Something slow, so that something else happens meanwhile."""

from __future__ import annotations

import threading


class Hold:
    """Keeps a thread where it is until it may go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.released.wait(10)
