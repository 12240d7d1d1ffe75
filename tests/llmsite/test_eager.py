"""A connection that sends at once: the same bytes in the same order, whoever reads how slowly."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from twisted.internet.protocol import Protocol

from llmsite.eager import EagerConnection


class Reactor:
    """Notes who waits for room in a socket."""

    def __init__(self) -> None:
        self.writers: set[object] = set()

    def addReader(self, reader: object) -> None:  # noqa: N802
        """Nothing is read here."""

    def removeReader(self, reader: object) -> None:  # noqa: N802
        """Nothing is read here."""

    def addWriter(self, writer: object) -> None:  # noqa: N802
        self.writers.add(writer)

    def removeWriter(self, writer: object) -> None:  # noqa: N802
        self.writers.discard(writer)


class Pair:
    """A connection and the client at its other end."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname())
            own, address = listener.accept()
        own.setblocking(False)
        self.client.setblocking(False)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.reactor = Reactor()
        self.server = EagerConnection(own, Protocol(), address, None, 0, self.reactor)

    @property
    def waits(self) -> bool:
        return bool(self.reactor.writers)

    def read(self) -> bytes:
        """All that is there."""
        got = b""
        try:
            while more := self.client.recv(1 << 16):
                got += more
        except BlockingIOError:
            pass
        return got


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.client.close()
    made.server.socket.close()


def test_what_the_socket_takes_is_sent_at_once(pair):
    pair.server.write(b"one")
    pair.server.writeSequence([b"two", b"three"])

    assert pair.read() == b"onetwothree"
    assert not pair.waits


def test_what_it_does_not_take_waits_and_nothing_overtakes_it(pair):
    said = []
    while not pair.waits:
        said.append(bytes([65 + len(said) % 26]) * 30_000)
        pair.server.write(said[-1])
    for one in (b"more", b"of it"):
        said.append(one)
        pair.server.write(one)

    got = pair.read()
    while pair.waits:
        assert pair.server.doWrite() is None
        got += pair.read()
    assert got == b"".join(said)

    pair.server.write(b"behind")
    assert pair.read() == b"behind"
    assert not pair.waits


def test_a_client_that_is_gone_is_left_to_the_loop(pair):
    pair.client.close()
    pair.server.write(b"one")
    pair.server.write(b"two")

    assert pair.waits
    assert pair.server.doWrite() is not None  # with which the loop ends the connection


def test_nothing_is_sent_once_the_connection_shall_end(pair):
    pair.server.write(b"one")
    pair.server.loseConnection()
    assert pair.waits, "the loop closes it"
    assert pair.read() == b"one"
