"""The end of the process: running answers are drained once, whoever asks for the end first.

At a signal daphne cancels every stream at once, and uvicorn closes its doors and then waits
for open streams without bound. So this stands in front of the server's signal handlers: the
drain begins at the signal while the server goes on listening, refuses what is new and serves
those who follow; it hears of the signal when everything is written. A second signal hurries.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from enum import StrEnum
from queue import SimpleQueue
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # the last: a terminal was closed
LAST_WORDS = 0.5  # seconds for what was settled at the end to reach its readers
GRACE = 4.0  # seconds behind the drain for the engine, the last words and the server

logger = logging.getLogger(__name__)


class Stage(StrEnum):
    """How far the end has come. DRAINED: whatever was running is written."""

    SERVING = "serving"
    DRAINING = "draining"
    DRAINED = "drained"


class Shutdown:
    """Drains, then unloads; once.

    drain(seconds) blocks until no answer runs any more; a call with 0 hurries one that waits.
    unload() ends the engine. leave(code) ends the process without any further step.
    """

    def __init__(
        self,
        *,
        drain: Callable[[float], None],
        unload: Callable[[], None],
        seconds: float,
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        self._drain = drain
        self._unload = unload
        self._seconds = seconds
        self._leave = leave
        self._once = threading.Lock()
        self._stage = Stage.SERVING
        self._watching = False
        self._told = False
        self._servers: dict[int, Any] = {}
        # A handler interrupts the main thread anywhere: it may take no lock, and this takes none.
        self._heard: SimpleQueue[int] = SimpleQueue()

    def settle(self) -> None:
        """Drain and unload. Blocks; does nothing when it is done."""
        with self._once:
            if self._stage is not Stage.SERVING:
                return
            self._stage = Stage.DRAINING
            try:
                self._drain(self._seconds)
                self._stage = Stage.DRAINED
            finally:
                self._unload()

    def at_exit(self) -> None:
        """For atexit. After a signal the process is left here: all is written, while the
        interpreter would take seconds to take torch apart, and no bound holds there."""
        self.settle()
        if self._told:
            sys.stdout.flush()
            logging.shutdown()
            self._leave_now()

    def watch_signals(self) -> None:
        """Stand in front of the server's handlers, which must be installed by now.

        Does nothing outside the main thread, where Python allows no handlers, and leaves a
        signal that is ignored alone.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, self._hear):
                self._servers[number] = handler
                signal.signal(number, self._hear)
        if not self._watching:
            self._watching = True
            self._in_background(self._at_first_signal)

    def lost(self, what: str) -> None:
        """The engine or the supervisor died, and only another process can have one: leave, so
        that it is replaced.

        The rows stay open; the next process goes on with them.
        """
        self._bound(GRACE, os.EX_SOFTWARE)
        try:
            self._drain(0)
        finally:
            logger.critical("The %s is lost. The process ends so that a new one goes on.", what)
            logging.shutdown()
            self._leave(os.EX_SOFTWARE)

    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI lifespan protocol: uvicorn speaks it, daphne does not."""
        while (await receive())["type"] == "lifespan.startup":
            self.watch_signals()
            await send({"type": "lifespan.startup.complete"})
        await asyncio.to_thread(self.settle)
        await send({"type": "lifespan.shutdown.complete"})

    def attach_to_twisted(self) -> None:
        """Under daphne: signals, and whatever else may stop its reactor."""
        from twisted.internet import reactor
        from twisted.internet.threads import deferToThread

        running: Any = reactor
        running.callWhenRunning(self.watch_signals)
        # Before Twisted joins the threads that wait for an answer.
        running.addSystemEventTrigger("before", "shutdown", deferToThread, self.settle)

    def _hear(self, number: int, frame: Any) -> None:
        self._heard.put(number)

    def _at_first_signal(self) -> None:
        number = self._heard.get()
        self._bound(self._seconds + GRACE)
        self._in_background(self._at_second_signal)
        name = signal.Signals(number).name
        logger.info(
            "%s: running answers may take %g s; a second signal hurries", name, self._seconds
        )
        try:
            self.settle()
        except Exception:  # the server must end all the same
            logger.exception("the drain failed")
        threading.Event().wait(LAST_WORDS)
        self._told = True
        handler = self._servers[number]
        uvicorn: Any = getattr(handler, "__self__", None)
        if hasattr(uvicorn, "should_exit"):
            # Its handler also notes the signal, to die of it when all is done; this is no death.
            uvicorn.should_exit = True
        elif callable(handler) and handler is not signal.default_int_handler:
            handler(number, None)
        else:
            self._leave_now()

    def _at_second_signal(self) -> None:
        self._heard.get()
        self._bound(GRACE)
        self._drain(0)

    def _bound(self, seconds: float, code: int | None = None) -> None:
        """Whatever hangs: the process is gone by then."""
        timer = threading.Timer(seconds, self._leave_now, (code,))
        timer.daemon = True
        timer.start()

    def _leave_now(self, code: int | None = None) -> None:
        self._leave(int(self._stage is not Stage.DRAINED) if code is None else code)

    @staticmethod
    def _in_background(work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="shutdown", daemon=True).start()
