"""The engine: transformers' continuous batching, made safe to share.

The batching manager is fast and trusting: any exception in a step ends its
thread for everybody, it knows no seeds per request and no stop texts, and a
cancelled request gets no last word. What is added here: validation before it,
ids of our own, one dispatcher behind it that never raises, a finish for every
ticket, and a restart when its thread dies.
"""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import uuid
from collections.abc import Sequence
from typing import Any

from transformers.generation.continuous_batching.model_runner import (
    infer_max_single_request_tokens,
)
from transformers.generation.continuous_batching.requests import RequestStatus

from modelhost import batching, prompts, sampling
from modelhost.checkpoints.base import Loaded, context_length
from modelhost.errors import BadSampling, Busy, NotReady, PromptTooLong
from modelhost.text import ResponseDecoder
from modelhost.ticket import Ticket
from modelhost.types import FinishReason, ModelCard, Rendered, Sampling, Tool, Turn

logger = logging.getLogger(__name__)

HEARTBEAT = 0.25  # seconds between looks at the engine's thread while it is silent


class Engine:
    """A loaded model that renders, submits and supervises."""

    def __init__(
        self,
        loaded: Loaded,
        *,
        name: str,
        revision: str,
        adapter: str = "",
        cache_tokens: int | None = None,
        max_requests: int = 256,
    ) -> None:
        self._model: Any = loaded.model
        self._format = loaded.format
        self._max_requests = max_requests
        self._tickets: dict[str, Ticket] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._restarting = threading.Lock()
        self._manager: Any = batching.new_manager(
            self._model, stop_ids=self._format.stop_ids, cache_tokens=cache_tokens
        )
        self._manager.warmup()  # builds the cache, so that its size is known before any request
        self.card = self._describe(name, revision, adapter)
        self.restarts = 0
        self._dispatcher = threading.Thread(
            target=self._dispatch, name="modelhost-dispatcher", daemon=True
        )

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
        with self._restarting:  # or the dispatcher could start the thread again behind us
            if self._stopping.is_set():
                return
            self._stopping.set()
        atexit.unregister(self.stop)
        self._manager.stop(block=True, timeout=timeout, hard_stop=True)
        self._fail_all("The server is stopping.")

    @property
    def alive(self) -> bool:
        """Whether a submitted request would be worked on."""
        return not self._stopping.is_set() and bool(self._manager.is_running())

    @property
    def active(self) -> int:
        """Generations running or waiting for a place."""
        return len(self._tickets)

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
        context = self.card.context_length
        sampling.validate(choice, vocabulary=self.card.vocabulary)
        if choice.max_tokens >= context:
            raise BadSampling("max_tokens", f"max_tokens must be from 1 to {context - 1}.")
        if not token_ids:
            raise PromptTooLong("The prompt has no tokens.")
        self._check_ids("token_ids", token_ids)
        if len(token_ids) + choice.max_tokens > context:
            raise PromptTooLong(
                f"The prompt has {len(token_ids)} tokens and max_tokens is {choice.max_tokens}; "
                f"together they may be at most {context}."
            )
        self._check_place()
        if not self.alive:
            raise NotReady("The engine is not running.")

    def _check_ids(self, field: str, token_ids: Sequence[int]) -> None:
        vocabulary = self.card.vocabulary
        if not all(isinstance(one, int) and 0 <= one < vocabulary for one in token_ids):
            raise BadSampling(field, f"{field} must be whole numbers from 0 to {vocabulary - 1}.")

    def _check_place(self) -> None:
        if self.active >= self._max_requests:
            raise Busy(f"{self._max_requests} generations are running or waiting already.")

    def submit(
        self,
        token_ids: Sequence[int],
        choice: Sampling,
        *,
        resume: Sequence[int] = (),
        tools: Sequence[Tool] = (),
    ) -> Ticket:
        """Start a generation; with `resume`, continue one from the ids that it had made.

        tools: those that the prompt was rendered with, so that a call of one is recognised.

        Raises what `validate` raises.
        """
        self.validate(token_ids, choice)
        self._check_ids("resume", resume)  # they may come from another model's time
        decoder = ResponseDecoder(
            self._format.decode, stops=choice.stop, answer=self._format.answer(tools)
        )
        ticket = Ticket(
            uuid.uuid4().hex,
            prompt_tokens=len(token_ids),
            decoder=decoder,
            stop_ids=self._format.stop_ids,
            resumed=resume,
            on_cancel=self._cancel,
        )
        if decoder.stopped or (resume and resume[-1] in self._format.stop_ids):
            ticket.end(FinishReason.STOP)
        elif len(resume) >= choice.max_tokens:
            ticket.end(FinishReason.LENGTH)
        else:
            self._add(ticket, [*token_ids, *resume], choice, choice.max_tokens - len(resume))
        return ticket

    def _add(self, ticket: Ticket, ids: list[int], choice: Sampling, new_tokens: int) -> None:
        with self._lock:
            self._check_place()  # again, now that nobody can take the place in between
            self._tickets[ticket.request_id] = ticket  # before: a short answer finishes first
        accepted = self._manager.add_request(
            ids,
            request_id=ticket.request_id,
            max_new_tokens=new_tokens,
            streaming=True,
            eos_token_id=sorted(self._format.stop_ids),
            sampling=choice,
        )
        if accepted is None:
            self._forget(ticket.request_id)
            raise NotReady("The engine is not running.")

    def _cancel(self, request_id: str) -> None:
        self._forget(request_id)
        self._manager.cancel_request(request_id)

    def _forget(self, request_id: str) -> None:
        with self._lock:
            self._tickets.pop(request_id, None)

    # The dispatcher: the only reader of the manager's output queue. Registering no handlers
    # means that the engine's thread never touches anybody's event loop.

    def _dispatch(self) -> None:
        outputs = self._manager.output_router.output_queue
        while not self._stopping.is_set():
            try:
                self._route(outputs.get(timeout=HEARTBEAT))
            except queue.Empty:
                if not self._manager.is_running() and not self._stopping.is_set():
                    self._restart()

    def _route(self, output: Any) -> None:
        with self._lock:
            ticket = self._tickets.get(output.request_id)
        if ticket is None:
            # Cancelled while this was on its way, or before the engine had seen the request:
            # then that cancel met nothing, and only this one ends it.
            if not output.is_finished():
                self._manager.cancel_request(output.request_id)
            return
        try:
            self._deliver(ticket, output)
        except Exception as error:  # one request's trouble must not silence the others
            logger.exception("generation %s could not be delivered", output.request_id)
            self._end(ticket, FinishReason.ERROR, error=f"{type(error).__name__} in the decoder.")
            self._manager.cancel_request(output.request_id)

    def _deliver(self, ticket: Ticket, output: Any) -> None:
        if output.status == RequestStatus.FAILED:
            self._end(ticket, FinishReason.ERROR, error="The engine failed on this generation.")
            logger.error("generation %s failed: %s", output.request_id, output.error)
        elif not ticket.deliver(output.generated_tokens):
            self._end(ticket, FinishReason.STOP)
            self._manager.cancel_request(output.request_id)
        elif output.is_finished():
            stopped = output.generated_tokens[-1] in self._format.stop_ids
            self._end(ticket, FinishReason.STOP if stopped else FinishReason.LENGTH)

    def _end(self, ticket: Ticket, reason: FinishReason, *, error: str = "") -> None:
        self._forget(ticket.request_id)
        ticket.end(reason, error=error)

    def _restart(self) -> None:
        """The engine's thread is dead: settle its tickets, start another where that works."""
        logger.error(
            "the engine's thread died: %s", self._manager.background_thread_status.fatal_error
        )
        self._fail_all("The engine died while it worked on this generation.")
        if self._model.device.type == "cuda":
            self._stopping.set()  # a device-side assert poisons the process: it must be replaced
            return
        with self._restarting:
            if not self._stopping.is_set():
                self._manager.start()
                self.restarts += 1

    def _fail_all(self, reason: str) -> None:
        with self._lock:
            tickets = list(self._tickets.values())
            self._tickets.clear()
        for ticket in tickets:
            ticket.end(FinishReason.ERROR, error=reason)

    def _describe(self, name: str, revision: str, adapter: str) -> ModelCard:
        config = self._model.config
        cache = infer_max_single_request_tokens(self._manager.batch_processor.cache)
        return ModelCard(
            name=name,
            revision=revision,
            architecture=type(self._model).__name__,
            parameters=self._model.num_parameters(),
            dtype=str(self._model.dtype).removeprefix("torch."),
            device=str(self._model.device),
            # One block less than fits: the last step of an answer asks for its next block.
            context_length=min(
                context_length(config),
                cache - self._manager.continuous_batching_config.page_size,
            ),
            vocabulary=int(config.get_text_config().vocab_size),
            adapter=adapter,
        )
