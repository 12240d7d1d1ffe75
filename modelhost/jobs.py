"""The generations that the engine owes an end, whatever becomes of the manager's thread.

A job outlives the thread that works on it: when the thread dies, the job is given to the
next one as another run, behind the ids that were delivered. One of the jobs may be why the
thread died. The second death in a job's life makes all that were in the engine suspects:
of these one runs at a time, so the third death names the one that kills: unless that one had
gone on past the place of the death before, and newcomers ran beside it.
"""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from modelhost import sharing
from modelhost.errors import Busy, NotReady
from modelhost.manager import Manager, accepting
from modelhost.ticket import Ticket, ahead
from modelhost.types import Sampling

SUSPICIOUS = 2  # deaths in a job's life after which it runs apart from others like it
FATAL = 3  # deaths after which a job is given up


@dataclass(eq=False, slots=True)
class Job:
    """A ticket and what is needed to submit it, as often as it takes.

    prompt: with the resumed ids. new_tokens: how many may follow them.
    run_id: the manager's name for the current run; empty while there is none.
    after: ids that had been delivered when that run began.
    """

    ticket: Ticket
    prompt: list[int]
    sampling: Sampling
    new_tokens: int
    owner: str = ""
    run_id: str = ""
    after: int = 0
    deaths: int = 0
    suspect: bool = False


class Jobs:
    """All jobs in order of arrival; the only one that hands requests to the manager.

    Its lock makes handing over and cancelling one step each, so that no run is ever left
    behind by a cancel and no answer comes before its job can be found.
    """

    def __init__(self, manager: Manager, *, stop_ids: Collection[int], limit: int) -> None:
        self._manager = manager
        self._stop_ids = sorted(stop_ids)
        self._limit = limit
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}  # by the ticket's id
        self._runs: dict[str, Job] = {}  # by the run's
        self._isolated: Job | None = None  # the suspect that runs
        self._idle = False  # whether a job may have no run
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def running(self) -> int:
        """How many the manager has been given and owes an end."""
        return len(self._runs)

    def check_place(self) -> None:
        """Raises Busy."""
        if len(self._jobs) >= self._limit:
            raise Busy(f"{self._limit} generations are running or waiting already.")

    def add(self, job: Job) -> None:
        """Take a job on. If the thread dies meanwhile, the next one gets it.

        Raises Busy, NotReady.
        """
        with self._lock:
            self.check_place()
            if self._closed:
                raise NotReady("The engine is not running.")
            self._run(job)
            self._jobs[job.ticket.request_id] = job

    def find(self, run_id: str) -> Job | None:
        """Whose run it is; None when it was cancelled or belongs to a thread that died."""
        with self._lock:
            return self._runs.get(run_id)

    def position(self, ticket: Ticket) -> int:
        """How many that wait for their first token came before this one."""
        with self._lock:
            line = [job.ticket for job in self._jobs.values()]
        return ahead(ticket, line)

    def cancel(self, ticket_id: str) -> None:
        """Let go of a job and of its run."""
        with self._lock:
            job = self._jobs.pop(ticket_id, None)
            if job is None:
                return
            self._runs.pop(job.run_id, None)
            if job.run_id:
                self._manager.cancel_request(job.run_id)
            if self._isolated is job:
                self._isolated = None

    def remove(self, job: Job) -> None:
        """Let go of a job whose run the manager has ended."""
        with self._lock:
            self._jobs.pop(job.ticket.request_id, None)
            self._runs.pop(job.run_id, None)
            if self._isolated is job:
                self._isolated = None

    def place(self) -> None:
        """Start a run for every job that has none and may have one."""
        if not self._idle:
            return
        with self._lock:
            idle = [job for job in self._jobs.values() if not job.run_id]
            self._idle = bool(idle)
            if self._closed or not accepting(self._manager):
                return
            for job in idle:
                if not job.suspect:
                    self._run(job)
            # A cancel that is still to be read may be the last suspect's: until then it runs.
            if self._isolated is None and self._manager.cancel_queue.empty():
                self._isolate([job for job in idle if job.suspect])

    def thread_died(self) -> list[Job]:
        """The thread is dead, and every run with it: returns the jobs that are given up."""
        with self._lock:
            running = list(self._runs.values())
            self._runs.clear()
            self._isolated, self._idle = None, True
            with suppress(queue.Empty):  # put there while it died: their jobs get other runs
                while True:
                    self._manager.input_queue.get_nowait()
            for job in running:
                job.run_id = ""
                job.deaths += len(running) == 1 or not _went_on(job)
            given_up = [job for job in running if job.deaths >= FATAL]
            for job in given_up:
                del self._jobs[job.ticket.request_id]
            if given_up:
                self._clear_suspicion()
            elif any(job.deaths >= SUSPICIOUS for job in running):
                for job in running:
                    job.suspect = True
            return given_up

    def close(self) -> None:
        """Take nothing on and start no run from now on."""
        with self._lock:
            self._closed = True

    def clear(self) -> list[Ticket]:
        """Let go of everything: the tickets that had no end yet."""
        with self._lock:
            tickets = [job.ticket for job in self._jobs.values()]
            self._jobs.clear()
            self._runs.clear()
        return tickets

    # With the lock held.

    def _isolate(self, suspects: list[Job]) -> None:
        if suspects:
            newest = suspects[-1]  # the thread lived with the older ones for longer
            self._run(newest)
            self._isolated = newest if newest.run_id else None

    def _clear_suspicion(self) -> None:
        """The killer is found: the others run together again, and are no worse than new."""
        for job in self._jobs.values():
            job.suspect = False
            job.deaths = min(job.deaths, SUSPICIOUS - 1)

    def _run(self, job: Job) -> None:
        delivered = job.ticket.delivered
        run_id = self._manager.add_request(
            [*job.prompt, *delivered],
            request_id=uuid.uuid4().hex,
            max_new_tokens=job.new_tokens - len(delivered),
            streaming=True,
            eos_token_id=self._stop_ids,
            sampling=job.sampling,
            **{sharing.KEYWORD: job.owner},
        )
        if run_id is None:  # the thread is dying: `place` tries again with the next one
            self._idle = True
            return
        job.run_id, job.after = run_id, len(delivered)
        self._runs[run_id] = job


def _went_on(job: Job) -> bool:
    """Whether it was under suspicion and brought something all the same."""
    return job.suspect and len(job.ticket.delivered) > job.after
