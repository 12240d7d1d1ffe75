"""Ways for an engine's thread to die, and those whom it meets."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace

from tests.modelhost.questions import PROMPT, WARM

POISON = 666_666  # the seed of a request that kills


class Panic(BaseException):
    """As the tokenizers' Rust raises: no Exception."""


class Bomb:
    """Makes a forward pass raise, once: `arm(3)`, and the third from now does."""

    def __init__(self, model):
        self._left = 0
        self._lit = threading.Event()
        self._lit.set()
        model.register_forward_pre_hook(self._count)

    def arm(self, passes):
        self._left = passes

    @contextmanager
    def held(self):
        """No pass is made inside: what is submitted is there before the death."""
        self._lit.clear()
        yield
        self._lit.set()

    def _count(self, *_):
        assert self._lit.wait(10)
        if self._left:
            self._left -= 1
            if not self._left:
                raise RuntimeError("a kernel went wrong")


class Revival:
    """Holds every new start of the manager's thread until it may go on."""

    def __init__(self, engine):
        self._engine = engine
        self._start = engine._manager.start
        self._died, self._go_on = threading.Event(), threading.Event()
        engine._manager.start = self._held

    def wait_died(self):
        assert self._died.wait(10)

    def let(self):
        self._go_on.set()

    def _held(self):
        self._died.set()
        assert self._go_on.wait(10)
        self._start()


class Poison:
    """From now on a request with the seed POISON kills when it has so many tokens."""

    def __init__(self, engine, position):
        self._position = position
        self._brewed = threading.Event()
        self._brewed.set()
        sampler = engine._manager.logit_processor
        self._prepare, sampler.prepare_tensor_args = sampler.prepare_tensor_args, self._explode

    @contextmanager
    def held(self):
        """No step is made inside."""
        self._brewed.clear()
        yield
        self._brewed.set()

    def _explode(self, requests_in_batch, arg_storage):
        assert self._brewed.wait(10)
        for state in (request.state for request in requests_in_batch if request.has_new_token):
            is_poison = state.logit_processor_kwargs["sampling"].seed == POISON
            if is_poison and state.position_offset >= self._position:
                raise RuntimeError("poison")
        return self._prepare(requests_in_batch, arg_storage)


def crew(engine, count, **changes):
    """Tickets of different seeds, prompts, lengths, beginnings and stop texts."""
    tickets = []
    for seed in range(count):
        choice = replace(WARM, **{"seed": seed, "max_tokens": 40 + 5 * seed, **changes})
        stops = ("e", "qu") if seed % 4 == 3 else ()
        beginning = [30, 31, 32 + seed] if seed % 3 == 2 else []
        tickets.append(
            engine.submit(
                [*PROMPT, 40 + seed] * (1 + seed), replace(choice, stop=stops), resume=beginning
            )
        )
    return tickets


def submit_killer(engine):
    return engine.submit(PROMPT, replace(WARM, seed=POISON))
