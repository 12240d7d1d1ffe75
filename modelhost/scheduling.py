"""The manager's scheduler, cured of a hang, over a cache that knows owners.

When the cache is full, the manager puts some requests back and takes no others in
until one finishes. A cancelled one counts as finished for it nowhere: if all that
still run are cancelled (a stop text is a cancel, too), nothing is ever taken in again.
"""

from __future__ import annotations

from typing import Any

from transformers.generation.continuous_batching.scheduler import (
    SCHEDULER_MAPPING,
    FIFOScheduler,
)

from modelhost.sharing import OwnedBlocks

NAME = "modelhost"


class Scheduler(FIFOScheduler):
    """First in, first out; a cancelled request makes room like a finished one."""

    def __init__(self, cache: Any, *args: Any, **options: Any) -> None:
        super().__init__(cache, *args, **options)
        self.blocks = OwnedBlocks(cache, self._state)

    def _state(self, request_id: str) -> Any:
        return self.waiting_requests.get(request_id) or self.active_requests[request_id]

    def clear_cancelled_requests(self) -> list[Any]:
        """The states of the requests that were cancelled since the last step."""
        cancelled: list[Any] = super().clear_cancelled_requests()
        if cancelled:
            self.block_new_requests = False
        return cancelled


SCHEDULER_MAPPING[NAME] = Scheduler  # the manager finds its scheduler by name
