"""The one model of this process: loaded once, however many ask at once.

`host` is shared by everything in the process. torch and transformers are
imported by the loading thread, so importing this module costs nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

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
    from modelhost import loading

    return loading.load(spec, progress)


class Host:
    """Holds the engine and knows how far its load has come."""

    def __init__(self, loader: Loader = load) -> None:
        self._loader = loader
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._state = HostState.IDLE
        self._engine: Engine | None = None
        self._error = ""
        self._progress = Progress()

    @property
    def state(self) -> HostState:
        return self._state

    @property
    def error(self) -> str:
        """Why the last load failed; empty when it did not."""
        return self._error

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
            self._settled.clear()
            self._progress = Progress(terminal=terminal)
        # A daemon, so that a process can end while a load hangs on a slow disk or network.
        threading.Thread(
            target=self._load, args=(spec, self._progress), name="modelhost-load", daemon=True
        ).start()

    def engine(self) -> Engine:
        """The engine, ready to answer. Raises NotReady, LoadFailed."""
        with self._lock:
            if self._state is HostState.FAILED:
                raise LoadFailed(self._error)
            if self._engine is None:
                raise NotReady("The model is still loading.")
            if not self._engine.alive:
                raise NotReady("The engine is not running.")
            return self._engine

    def wait(self, timeout: float | None = None) -> Engine:
        """Block until the load is over. Raises NotReady after `timeout` seconds, LoadFailed."""
        if self._state is HostState.IDLE or not self._settled.wait(timeout):
            raise NotReady("No model has been loaded.")
        return self.engine()

    def unload(self) -> None:
        """Stop the engine and let go of the model; safe at any time, also at exit."""
        with self._lock:
            engine, self._engine = self._engine, None
            if self._state is not HostState.LOADING:
                self._state = HostState.IDLE
        if engine is not None:
            engine.stop()

    def reload(self, spec: ModelSpec, *, terminal: bool = False) -> None:
        """Replace the model: unload, then load again."""
        self.unload()
        self.start(spec, terminal=terminal)

    def _load(self, spec: ModelSpec, progress: Progress) -> None:
        try:
            engine = self._loader(spec, progress)
        except ModelHostError as error:
            self._fail(str(error))
        except Exception as error:  # whatever a library raises must end as a sentence, not a hang
            logger.exception("loading %s failed", spec.model)
            self._fail(f"{spec.model} could not be loaded ({type(error).__name__}): see the log.")
        else:
            with self._lock:
                self._engine = engine
                self._state = HostState.READY
            self._settled.set()

    def _fail(self, sentence: str) -> None:
        logger.error("%s", sentence)
        with self._lock:
            self._error = sentence
            self._state = HostState.FAILED
        self._settled.set()


host = Host()
