"""The one model of this process: loaded once, however many ask at once.

`host` is shared by everything in the process. torch and transformers are
imported by the loading thread, so importing this module costs nothing.
"""

from __future__ import annotations

import functools
import gc
import logging
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from modelhost.cpu import heap
from modelhost.errors import LoadFailed, ModelHostError, NotReady
from modelhost.progress import Progress, Snapshot
from modelhost.types import ModelSpec

if TYPE_CHECKING:
    from modelhost.engine import Engine

logger = logging.getLogger(__name__)


class HostState(StrEnum):
    """`idle → loading → ready | failed`; unloading goes back to idle."""

    IDLE = "idle"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


Loader = Callable[[ModelSpec, Progress], "Engine"]


def load(spec: ModelSpec, progress: Progress) -> Engine:
    """The real loader; its import is what brings torch in, so it happens here and not above."""
    heap.share()  # before there are many threads
    gc.disable()  # the import makes half a million objects and no garbage
    try:
        from modelhost import loading
    finally:
        gc.enable()
    gc.freeze()
    engine = loading.load(spec, progress)
    spare_the_collector()
    return engine


def spare_the_collector() -> None:
    """Let the garbage collector pass over all that exists now, until the model is unloaded.

    What torch and transformers bring never becomes garbage. Looking at all of it held every
    thread of the server for 0.2 to 0.4 s, now and then; docs/decisions/0014.
    """
    gc.collect()
    gc.freeze()


def _free(engine: Engine) -> None:
    """Stop an engine, and let the garbage collector find its model, whose objects form cycles."""
    engine.stop()
    gc.unfreeze()


class Host:
    """Holds the engine and knows how far its load has come.

    on_lost: called once, from a thread of its own, when the engine died and only another
    process can have one. The tickets are still without an end then: whoever sets this takes
    care of them. With nobody set, they end with an error.
    gather: the `gather` of every engine from now on.
    """

    def __init__(self, loader: Loader = load) -> None:
        self._loader = loader
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # one load at a time, abandoned ones included
        self._attempt = 0  # the number of the load that is wanted
        self._settled = threading.Event()
        self._state = HostState.IDLE
        self._engine: Engine | None = None
        self._error = ""
        self._progress = Progress()
        self.on_lost: Callable[[], None] | None = None
        self.gather: Callable[[], None] | None = None

    @property
    def state(self) -> HostState:
        return self._state

    @property
    def error(self) -> str:
        """Why the last load failed; empty when it did not."""
        return self._error if self._state is HostState.FAILED else ""

    @property
    def progress(self) -> Snapshot:
        return self._progress.snapshot

    def start(self, spec: ModelSpec, *, terminal: bool = False) -> None:
        """Begin to load in a thread; does nothing while loading or when loaded.

        terminal: draw progress bars on stderr.
        """
        with self._lock:
            if self._state in (HostState.LOADING, HostState.READY):
                return
            self._state = HostState.LOADING
            self._error = ""
            self._attempt += 1
            self._settled.clear()
            self._progress = progress = Progress(terminal=terminal)
            task = (spec, progress, self._attempt)
        # A daemon, so that a process can end while a load hangs on a slow disk or network.
        threading.Thread(target=self._load, args=task, name="modelhost-load", daemon=True).start()

    def serve_with(self, engine: Engine) -> None:
        """Serve with an engine that was made elsewhere: another backend, or a script in a test.

        A load that is under way is not wanted any more.
        """
        with self._lock:
            self._attempt += 1
            self._engine, self._error = engine, ""
            self._settle(HostState.READY)
        self._watch(engine)

    def engine(self) -> Engine:
        """The engine, ready to answer. Raises NotReady, LoadFailed."""
        with self._lock:
            if self._state is HostState.FAILED:
                raise LoadFailed(self._error)
            if self._state is HostState.LOADING:
                raise NotReady("The model is still loading.")
            if self._engine is None:
                raise NotReady("No model has been loaded.")
            if not self._engine.alive:
                raise NotReady("The engine is not running.")
            return self._engine

    def wait(self, timeout: float | None = None) -> Engine:
        """Block until the load is over. Raises NotReady after `timeout` seconds, LoadFailed."""
        if self._state is HostState.LOADING:
            self._settled.wait(timeout)
        return self.engine()

    def unload(self) -> None:
        """Stop the engine and let go of the model; safe at any time, also at exit.

        A load that is under way cannot be interrupted; what it brings is thrown away.
        """
        with self._lock:
            engine, self._engine = self._engine, None
            self._state = HostState.IDLE
            self._attempt += 1
            self._settled.set()
        if engine is not None:
            _free(engine)

    def _load(self, spec: ModelSpec, progress: Progress, attempt: int) -> None:
        with self._turn:
            if attempt != self._attempt:
                return
            try:
                engine = self._loader(spec, progress)
            except ModelHostError as error:
                self._fail(attempt, str(error))
            except BaseException as error:  # a Rust panic, too, must not look like an endless load
                logger.exception("loading %s failed", spec.model)
                name = type(error).__name__
                self._fail(attempt, f"{spec.model} could not be loaded ({name}): see the log.")
            else:
                self._succeed(attempt, engine, spec.model)

    def _succeed(self, attempt: int, engine: Engine, name: str) -> None:
        with self._lock:
            wanted = attempt == self._attempt
            if wanted:
                self._engine = engine
                self._settle(HostState.READY)
        if wanted:
            self._watch(engine)
            logger.info("%s is loaded and answers", name)
        else:
            _free(engine)

    def _watch(self, engine: Engine) -> None:
        engine.when_lost(functools.partial(self._lose, engine))
        if self.gather is not None:
            engine.gather = self.gather

    def _lose(self, engine: Engine) -> None:
        with self._lock:
            serving = engine is self._engine
        if not serving:
            return
        logger.critical("The engine died and cannot be started again in this process.")
        if self.on_lost is None:
            engine.stop()
        else:
            self.on_lost()

    def _fail(self, attempt: int, sentence: str) -> None:
        logger.error("%s", sentence)
        with self._lock:
            if attempt == self._attempt:
                self._error = sentence
                self._settle(HostState.FAILED)

    def _settle(self, state: HostState) -> None:
        self._state = state
        self._settled.set()


host = Host()
