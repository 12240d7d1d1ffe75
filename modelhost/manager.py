"""What of transformers' batching manager the engine relies on, as types.

`modelhost.batching` makes one and sets it up, which goes deeper; an upgrade of the library begins
with a look at these names. Source: `transformers.generation.continuous_batching`, version 5.23.
"""

from __future__ import annotations

import queue
from typing import Any, Protocol


class Output(Protocol):
    """What the manager says of one request behind a step, or at its end.

    generated_tokens: all so far, those of earlier steps as well.
    """

    request_id: str
    status: Any
    error: str | None
    generated_tokens: list[int]

    def is_finished(self) -> bool:
        """Whether it is the last one, be it that the request failed."""


class OutputRouter(Protocol):
    """Where outputs go that no handler was registered for."""

    output_queue: queue.Queue[Output]


class ThreadStatus(Protocol):
    """Whether the manager's thread goes on. fatal_error: what ended it."""

    fatal_error: BaseException | None

    def can_accept_new_requests(self) -> str | None:
        """None, or why not."""


class Manager(Protocol):
    """transformers' ContinuousBatchingManager.

    current_batch: the number of steps since its thread began.
    input_queue, cancel_queue: what was asked of its thread and not looked at yet.
    """

    background_thread_status: ThreadStatus
    output_router: OutputRouter
    input_queue: queue.Queue[Any]
    cancel_queue: queue.Queue[str]
    current_batch: int

    def start(self) -> None:
        """Begin a thread, if there is none."""

    def stop(self, *, block: bool, timeout: float, hard_stop: bool) -> None:
        """End the thread; with `hard_stop` without working off what was asked."""

    def is_running(self) -> bool:
        """Whether its thread lives."""

    def warmup(self) -> None:
        """Build the cache, and capture CUDA graphs where they are used."""

    def add_request(
        self,
        input_ids: list[int],
        *,
        request_id: str,
        max_new_tokens: int,
        streaming: bool,
        eos_token_id: list[int],
        **kept: Any,
    ) -> str | None:
        """The request's id; None where none is taken any more. kept: for the logits processor."""

    def cancel_request(self, request_id: str) -> None:
        """Have its thread drop a request, before its next step."""


def accepting(manager: Manager) -> bool:
    """Whether the manager takes requests: false from the first moment of its thread's end."""
    return manager.background_thread_status.can_accept_new_requests() is None
