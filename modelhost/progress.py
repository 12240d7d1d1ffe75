"""How far a load has come: one object that a terminal bar and `/readyz` both read."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    Bar = tqdm[Any]
else:
    Bar = tqdm  # is generic in its stubs only

BYTES = "B"  # tqdm's own word for the unit


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a load. `done` and `total` count in `unit`; total 0 means unknown."""

    stage: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""

    @property
    def fraction(self) -> float | None:
        return min(1.0, self.done / self.total) if self.total else None


class Progress:
    """The stages of one load, written by the loader, read by anyone.

    With `terminal=True` each stage also draws a bar on stderr.
    """

    def __init__(self, *, terminal: bool = False) -> None:
        self._lock = threading.Lock()
        self._snapshot = Snapshot()
        self._terminal = terminal
        self._bar: Bar | None = None

    @property
    def snapshot(self) -> Snapshot:
        with self._lock:
            return self._snapshot

    def begin(self, stage: str, *, total: int = 0, unit: str = "") -> None:
        """Start a stage; the one before it is over."""
        with self._lock:
            self._close_bar()
            self._snapshot = Snapshot(stage, 0, total, unit)
            if self._terminal and unit:
                self._bar = tqdm(total=total or None, desc=stage, unit=f" {unit}", file=sys.stderr)
            elif self._terminal:
                sys.stderr.write(f"{stage} …\n")  # nothing to count: a bar would only sit there

    def advance(self, amount: int = 1) -> None:
        """Count `amount` more of the stage's unit."""
        with self._lock:
            now = self._snapshot
            self._snapshot = Snapshot(now.stage, now.done + amount, now.total, now.unit)
            if self._bar is not None:
                self._bar.update(amount)

    def resize(self, total: int) -> None:
        """The stage turned out to be `total` long."""
        with self._lock:
            now = self._snapshot
            self._snapshot = Snapshot(now.stage, now.done, total, now.unit)
            if self._bar is not None:
                self._bar.reset(total)

    def end(self) -> None:
        """The load is over, well or badly."""
        with self._lock:
            self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def tqdm_class(self) -> Callable[..., Bar]:
        """A tqdm class whose ticks land here: libraries that accept one report to us.

        The hub's library has one bar for files and others for their bytes: bars of bytes count
        only in a stage that is measured in bytes, and there no others do.
        """
        progress = self
        in_bytes = self.snapshot.unit == BYTES

        class Reporting(Bar):
            def __init__(self, *args: Any, **options: Any) -> None:
                self._counts = (options.get("unit") == BYTES) == in_bytes
                options["disable"] = True  # this object draws the bar, not the library
                super().__init__(*args, **options)
                if self._counts and self.total:  # given, or the length of what it goes over
                    progress.resize(int(self.total))

            def update(self, n: float | None = 1) -> bool | None:
                if self._counts:
                    progress.advance(int(n or 0))
                return super().update(n)

            def __iter__(self) -> Iterator[Any]:
                for item in self.iterable or ():
                    yield item
                    if self._counts:
                        progress.advance()

        return Reporting
