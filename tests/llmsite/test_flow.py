"""Clients that read slowly or not at all: what they cost, and what their neighbours notice."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from django.http import StreamingHttpResponse
from django.urls import path

from chat.connections import connection_of
from llmsite import flow
from llmsite.flow import Flow

PIECE = b"x" * 65536
PIECES = 400  # 25 MiB, far beyond what the kernel takes for a socket
SLOW = 110

sent: dict[str, int] = {}
left = threading.Event()


async def pieces(name: str, count: int) -> AsyncGenerator[bytes, None]:
    for _ in range(count):
        sent[name] = sent.get(name, 0) + 1
        yield PIECE
        await asyncio.sleep(0)


def view(request: Any) -> StreamingHttpResponse:
    connection_of(request).on_close(left.set)
    return StreamingHttpResponse(pieces(request.GET["name"], int(request.GET["count"])))


urlpatterns = [path("big", view)]


@pytest.fixture(autouse=True)
def routes(settings) -> None:
    """The route above."""
    settings.ROOT_URLCONF = __name__
    sent.clear()
    left.clear()


@contextmanager
def asking(
    server, name: str, count: int = PIECES, *, buffer: int = 1 << 16
) -> Iterator[socket.socket]:
    """A connection that asked and reads as it likes; buffer: what its kernel takes unread."""
    host, port = server.address.removeprefix("http://").split(":")
    with socket.socket() as connection:
        connection.settimeout(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.connect((host, int(port)))
        line = f"GET /big?name={name}&count={count} HTTP/1.1"
        connection.sendall(f"{line}\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        yield connection


def rest(connection: socket.socket) -> int:
    """How many bytes come until the server closes."""
    total = 0
    while part := connection.recv(1 << 16):
        total += len(part)
    return total


def settled(name: str) -> int:
    """How many pieces were made when no more are."""
    pause, before = threading.Event(), -1
    while sent.get(name, 0) != before or not before:
        before = sent.get(name, 0)
        pause.wait(0.3)
    return before


def test_who_does_not_read_stops_the_generator_and_no_neighbour(server):
    with asking(server, "sleeper") as sleeper:
        made = settled("sleeper")
        answer = httpx.get(f"{server.address}/big?name=neighbour&count={PIECES}", timeout=20)

        assert made * len(PIECE) < 1 << 20, "also the system keeps little of it"
        assert len(answer.content) == PIECES * len(PIECE)
        assert sent["sleeper"] == made
        assert rest(sleeper) > PIECES * len(PIECE), "it wakes up, and nothing was lost"


def test_a_slow_reader_gets_everything(server, monkeypatch):
    monkeypatch.setattr(flow, "STALLED", 1.0)
    with asking(server, "slow", SLOW, buffer=4096) as slow:
        made = settled("slow")
        pause, total = threading.Event(), 0
        while part := slow.recv(1 << 15):
            total += len(part)
            pause.wait(0.002)

    assert made < SLOW, "it had to wait for its reader"
    assert total > SLOW * len(PIECE)
    assert not left.is_set()


def test_who_stalls_is_cut_and_counts_as_gone(server, monkeypatch):
    monkeypatch.setattr(flow, "STALLED", 0.2)
    with asking(server, "dead") as dead:
        assert left.wait(10)
        made = sent["dead"]
        with pytest.raises(ConnectionResetError):
            rest(dead)

    assert made < PIECES / 2


def test_who_leaves_while_the_generator_waits_releases_it(server):
    with asking(server, "leaver"):
        settled("leaver")

    assert left.wait(10)


def test_a_connection_is_used_again_after_it_was_full(server):
    with httpx.Client(base_url=server.address, timeout=20) as client:
        for name in ("one", "two"):
            answer = client.get("/big", params={"name": name, "count": 60})
            assert len(answer.content) == 60 * len(PIECE)


async def test_a_flow_that_was_never_full_is_open():
    await asyncio.wait_for(Flow(lambda: pytest.fail("not stalled")).open(), 1)
