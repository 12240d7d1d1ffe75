"""The live responses of this process: one for each id, for as long as somebody holds it."""

from __future__ import annotations

import threading
import weakref
from uuid import UUID

from chat.lifecycle.live import LiveResponse


class Lives:
    """Whether they are generated here or elsewhere: whoever holds one sees it grow and end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: weakref.WeakValueDictionary[UUID, LiveResponse] = weakref.WeakValueDictionary()

    def of(self, response_id: UUID) -> LiveResponse:
        """The one with this id, made when there is none, or only one that was suspended."""
        with self._lock:
            live = self._held.get(response_id)
            if live is None or (live.ended and live.outcome is None):
                live = self._held[response_id] = LiveResponse(response_id)
            return live

    def all(self) -> list[LiveResponse]:
        """Those that somebody holds now."""
        with self._lock:  # others add to it
            return list(self._held.values())
