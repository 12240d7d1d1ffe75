"""What several tests share: sockets, an answer that waits for its gate, places under a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import connections

from chat.limits.admission import Admission
from tests.fakes import Clock, ScriptedEngine, Turnstile
from tests.sockets import Socket, socket_to


@pytest.fixture
def opened(server, key) -> Iterator[Callable[..., Socket]]:
    """Opens sockets of ada, or of whoever has this key."""
    with ExitStack() as sockets:

        def open_one(secret: str = key) -> Socket:
            return sockets.enter_context(socket_to(server, secret))

        yield open_one


@pytest.fixture
def socket(opened) -> Socket:
    """One of them."""
    return opened()


@pytest.fixture
def turnstile(serve) -> Turnstile:
    """Lets the pieces of answers through."""
    turnstile = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=turnstile))
    return turnstile


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def places(clock: Clock, settings: Any) -> Admission:
    """Four requests with 100 tokens for all, three with 60 for one."""
    settings.LLMSITE_MAX_REQUESTS = 4
    settings.LLMSITE_MAX_QUEUED_TOKENS = 100
    settings.LLMSITE_MAX_REQUESTS_PER_CALLER = 3
    settings.LLMSITE_MAX_TOKENS_PER_CALLER = 60
    return Admission(clock)


@pytest.fixture
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    """Another session of the database."""
    with ThreadPoolExecutor(1) as one:
        yield one
        one.submit(connections.close_all)
