"""What the tests of the WebSocket share: open sockets, and an answer that waits for its gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.fakes import ScriptedEngine, Turnstile
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
