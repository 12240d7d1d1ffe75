"""The engine: transformers' continuous batching, made safe to share.

The batching manager is fast and trusting: any exception in a step ends its
thread for everybody, it knows no seeds per request and no stop texts, and a
cancelled request gets no last word. What is added: validation before it
(`validation`), generations that outlive its thread (`jobs`), one dispatcher
behind it that never raises (`dispatcher`), a finish for every ticket, and a
restart when its thread dies.
"""

from __future__ import annotations

import atexit
import logging
import threading
import uuid
from collections.abc import Callable, Sequence

from modelhost import batching, card, prompts, validation
from modelhost.checkpoints.base import Loaded
from modelhost.dispatcher import Dispatcher
from modelhost.errors import NotReady, first_line
from modelhost.jobs import Job, Jobs
from modelhost.manager import Manager
from modelhost.text import ResponseDecoder
from modelhost.ticket import Ticket
from modelhost.types import FinishReason, Rendered, Sampling, Tool, Turn

logger = logging.getLogger(__name__)


class Engine:
    """A loaded model that renders, submits and supervises.

    restartable: whether a thread that died can be replaced in this process. After a
    device-side assert CUDA cannot be used by the process any more.
    lost: its thread died and cannot be replaced here, or it hangs: a thread cannot be ended from
    outside. Its tickets stay as they are.
    death: why its thread died the last time, a library's words; empty if it never did.
    gather: called on its thread before the first step after a pause, on a CPU. It may wait for a
    moment, so that requests that arrive together are computed together.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        name: str,
        revision: str,
        adapter: str = "",
        cache_tokens: int | None = None,
        max_requests: int = 256,
        share_prefixes: bool = True,
        speculate: bool = True,
        patience: float = 120.0,
    ) -> None:
        self.gather: Callable[[], None] = lambda: None
        self._format = loaded.format
        stop_ids = self._format.stop_ids
        self._manager: Manager = batching.new_manager(
            loaded.model,
            stop_ids=stop_ids,
            cache_tokens=cache_tokens,
            share_prefixes=share_prefixes,
            speculate=speculate,
            gather=lambda: self.gather(),
        )
        self._manager.warmup()  # builds the cache, so that its size is known before any request
        self.card = card.describe(
            loaded.model, self._manager, name=name, revision=revision, adapter=adapter
        )
        self.restartable = loaded.model.device.type != "cuda"
        self.restarts = 0
        self.lost = False
        self.death = ""
        self._on_lost: Callable[[], None] | None = None
        self._life = threading.Lock()  # held by whoever starts or ends the manager's thread
        self._stopping = threading.Event()
        self._jobs = Jobs(self._manager, stop_ids=stop_ids, limit=max_requests)
        self._dispatcher = Dispatcher(
            self._manager,
            self._jobs,
            stop_ids=stop_ids,
            on_death=self._died,
            on_hang=self._hangs,
            patience=patience,
        )

    # Its life.

    def start(self) -> None:
        """Begin to serve."""
        # The manager's thread inherits being a daemon from the thread that starts it. If it
        # were none, a process that forgot to stop the engine would never end. Being one, it
        # must be stopped before the interpreter goes, or torch aborts under it.
        atexit.register(self.stop)
        starter = threading.Thread(target=self._manager.start, daemon=True)
        starter.start()
        starter.join()
        self._dispatcher.start()

    def stop(self, *, timeout: float = 5.0) -> None:
        """End the engine's thread and every ticket; at the latest the process's end calls this."""
        with self._life:  # or the dispatcher could start the thread again behind us
            if self._stopping.is_set():
                return
            self._stopping.set()
        atexit.unregister(self.stop)
        self._jobs.close()
        self._dispatcher.finish()
        try:
            self._manager.stop(block=True, timeout=timeout, hard_stop=True)
        except Exception:  # a lost device raises at every touch; the tickets need their end
            logger.exception("the manager could not be stopped")
        self._end_all("The server is stopping.")

    @property
    def alive(self) -> bool:
        """Whether a submitted request would be worked on now."""
        if self._stopping.is_set() or self.lost:
            return False
        return self._manager.is_running() and self._dispatcher.is_alive()

    def when_lost(self, call: Callable[[], None]) -> None:
        """Have this called, once and from a thread of its own, when the engine is lost."""
        with self._life:
            self._on_lost = call
            if self.lost:
                self._tell()

    def _died(self) -> None:
        """On the dispatcher's thread: the manager's is dead."""
        with self._life:
            if self._stopping.is_set():
                return
            fatal = self._manager.background_thread_status.fatal_error
            self.death = first_line(fatal) if fatal else "for no reason that it told"
            logger.error("the engine's thread died: %s", self.death)
            if self.restartable:
                self._revive()
            else:
                self._lose()

    def _hangs(self) -> None:
        """On the dispatcher's thread: the manager's has work and makes no step."""
        with self._life:
            if self._stopping.is_set():
                return
            logger.error("the engine's thread hangs: it has work and makes no step")
            self._lose()

    def _revive(self) -> None:
        for job in self._jobs.thread_died():
            logger.error("generation %s is given up", job.ticket.request_id)
            job.ticket.end(
                FinishReason.ERROR,
                error=f"The engine died {job.deaths} times while it worked on this generation.",
            )
        self._manager.start()  # the dispatcher gives the jobs to it at its next step
        self.restarts += 1

    def _lose(self) -> None:
        self.lost = True
        self._jobs.close()
        self._dispatcher.finish()
        if self._on_lost is None:  # nobody is there to take care of the tickets
            self._end_all("The engine died or hung while it worked on this generation.")
        else:
            self._tell()

    def _tell(self) -> None:
        threading.Thread(target=self._on_lost, name="modelhost-lost", daemon=True).start()

    def _end_all(self, reason: str) -> None:
        for ticket in self._jobs.clear():
            ticket.end(FinishReason.ERROR, error=reason)

    # Its work.

    @property
    def active(self) -> int:
        """Generations running or waiting for a place."""
        return len(self._jobs)

    def position(self, ticket: Ticket) -> int:
        """How many tickets before this one wait for their first token, while it waits itself."""
        return self._jobs.position(ticket)

    def render(
        self,
        turns: Sequence[Turn],
        *,
        max_tokens: int | None = None,
        tools: Sequence[Tool] = (),
    ) -> Rendered:
        """Turns to a prompt that leaves room for the answer. CPU work: not for an event loop.

        Raises BadTurns, PromptTooLong, BadSampling (max_tokens beyond the context).
        """
        return prompts.render(
            self._format,
            turns,
            context=self.card.context_length,
            max_tokens=max_tokens,
            tools=tools,
        )

    def room(self, prompt_tokens: int) -> int:
        """Tokens for an answer to such a prompt when the request names no number."""
        return max(1, min(prompts.DEFAULT_ANSWER, self.card.context_length - prompt_tokens))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids, control tokens left out."""
        return self._format.decode(token_ids)

    def validate(self, token_ids: Sequence[int], choice: Sampling) -> None:
        """Everything that would be refused, found out before anything is stored or started.

        Raises BadSampling, PromptTooLong, Busy, NotReady.
        """
        validation.check(self.card, token_ids, choice)
        self._jobs.check_place()
        if not self.alive:
            raise NotReady("The engine is not running.")

    def submit(
        self,
        token_ids: Sequence[int],
        choice: Sampling,
        *,
        resume: Sequence[int] = (),
        tools: Sequence[Tool] = (),
        owner: str = "",
    ) -> Ticket:
        """Start a generation; with `resume`, continue one from the ids that it had made.

        tools: those that the prompt was rendered with, so that a call of one is recognised.
        owner: whose earlier prompts this one may share its computed beginning with.

        Raises what `validate` raises.
        """
        self.validate(token_ids, choice)
        validation.check_ids(self.card, "resume", resume)  # they may be another model's
        decoder = ResponseDecoder(
            self._format.decode, stops=choice.stop, answer=self._format.answer(tools)
        )
        ticket = Ticket(
            uuid.uuid4().hex,
            prompt_tokens=len(token_ids),
            decoder=decoder,
            stop_ids=self._format.stop_ids,
            resumed=resume,
            on_cancel=self._jobs.cancel,
        )
        room = choice.max_tokens - len(resume)
        if decoder.stopped or (resume and resume[-1] in self._format.stop_ids):
            ticket.end(FinishReason.STOP)
        elif room <= 0:
            ticket.end(FinishReason.LENGTH)
        else:
            self._jobs.add(Job(ticket, [*token_ids, *resume], choice, room, owner))
        return ticket
