"""The only reader of the manager's outputs, and the first to notice that its thread is dead.

The manager's result handlers are not used: with none registered, the engine's thread
never touches anybody's event loop.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Collection

from transformers.generation.continuous_batching.requests import RequestStatus

from modelhost.jobs import Job, Jobs
from modelhost.manager import Manager, Output, accepting
from modelhost.types import FinishReason

logger = logging.getLogger(__name__)

HEARTBEAT = 0.25  # seconds between looks at the engine's thread while it is silent
LONGEST = 1.0  # seconds that one look counts for: in a later one the whole process was paused


class Dispatcher(threading.Thread):
    """Turns outputs into pieces and ends; goes on whatever happens.

    on_death: called on this thread, again at each heartbeat as long as nothing came of it.
    on_hang: called likewise when the manager's thread lives and has made no step for `patience`
    seconds, although it has work. Time in which the process was paused is no time to make a step.
    """

    def __init__(
        self,
        manager: Manager,
        jobs: Jobs,
        *,
        stop_ids: Collection[int],
        on_death: Callable[[], None],
        on_hang: Callable[[], None],
        patience: float,
    ) -> None:
        super().__init__(name="modelhost-dispatcher", daemon=True)
        self._manager = manager
        self._jobs = jobs
        self._stop_ids = stop_ids
        self._on_death = on_death
        self._on_hang = on_hang
        self._patience = patience
        self._steps, self._looked_at = 0, time.monotonic()
        self._silence = 0.0  # seconds without a step, although there is work
        self._over = threading.Event()

    def finish(self) -> None:
        """End soon; does not wait."""
        self._over.set()

    def run(self) -> None:
        """The thread's work."""
        while not self._over.is_set():
            try:
                self._step()
            except BaseException:  # Rust's panics too: without this thread nobody gets anything
                logger.exception("the dispatcher stumbled")
                self._over.wait(HEARTBEAT)

    def _step(self) -> None:
        self._jobs.place()
        try:
            output = self._manager.output_router.output_queue.get(timeout=HEARTBEAT)
        except queue.Empty:
            if self._over.is_set():
                return
            # Only now: what came before the death is delivered, and need not be made again.
            if not self._manager.is_running():
                self._on_death()
            elif self._hung():
                self._on_hang()
        else:
            self._route(output)

    def _hung(self) -> bool:
        """Asked while nothing comes out of the manager."""
        steps, now = self._manager.current_batch, time.monotonic()
        self._silence += min(now - self._looked_at, LONGEST)
        self._looked_at = now
        if steps != self._steps or not self._jobs.running:
            self._steps, self._silence = steps, 0.0
        return self._silence > self._patience

    def _route(self, output: Output) -> None:
        job = self._jobs.find(output.request_id)
        if job is None:
            # Cancelled while this was on its way, or before the engine had seen the request:
            # then that cancel met nothing, and only this one ends it.
            if not output.is_finished():
                self._manager.cancel_request(output.request_id)
            return
        try:
            self._deliver(job, output)
        except BaseException as error:  # one request's trouble must not silence the others
            logger.exception("generation %s could not be delivered", job.ticket.request_id)
            self._cut(job, FinishReason.ERROR, error=f"{type(error).__name__} in the decoder.")

    def _deliver(self, job: Job, output: Output) -> None:
        if output.status == RequestStatus.FAILED:
            self._fail(job, output.error)
        elif not job.ticket.deliver(output.generated_tokens, after=job.after):
            self._cut(job, FinishReason.STOP)
        elif output.is_finished():
            stopped = output.generated_tokens[-1] in self._stop_ids
            self._jobs.remove(job)
            job.ticket.end(FinishReason.STOP if stopped else FinishReason.LENGTH)

    def _fail(self, job: Job, error: str | None) -> None:
        """The manager fails one request that it cannot take, and all of them when it dies."""
        if accepting(self._manager):
            logger.error("generation %s failed: %s", job.ticket.request_id, error)
            self._jobs.remove(job)
            job.ticket.end(FinishReason.ERROR, error="The engine failed on this generation.")

    def _cut(self, job: Job, reason: FinishReason, *, error: str = "") -> None:
        """End a generation that the manager would go on with."""
        self._jobs.cancel(job.ticket.request_id)
        job.ticket.end(reason, error=error)
