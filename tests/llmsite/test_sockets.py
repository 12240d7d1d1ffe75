"""Limits of daphne's WebSockets: what a client on a real socket meets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import psutil
import pytest
from django.conf import settings

from chat.limits.readers import readers
from chat.models import Prompt
from chat.websocket import consumers, socket_replies
from chat.wire import events
from chat.wire.events import Event
from llmsite import flow
from llmsite.sockets import MOST_MESSAGES
from tests.chat.holding import Hold
from tests.chat.rows import answered
from tests.sockets import Socket, deaf, frame, socket_to, until_cut
from tests.web import eventually

PIECE = "x" * 65536
BINARY = bytes([0x82, 0x80 | 1, 0, 0, 0, 0]) + b"x"  # a frame that closes the socket
UNSUPPORTED = (4415).to_bytes(2)
DAPHNES_PATIENCE = 5.0  # seconds
PIECES = 400  # 25 MiB, far beyond what the kernel takes for a socket


@pytest.fixture
def socket(server, key):
    """One that is open."""
    with socket_to(server, key) as opened:
        yield opened


@pytest.fixture
def told(engine, monkeypatch) -> list[int]:
    """Followers are told 25 MiB, in pieces that are counted."""
    made: list[int] = []

    async def follow(*_: Any, **__: Any) -> AsyncGenerator[Event, None]:
        for number in range(PIECES):
            made.append(number)
            yield Event("", {"text": PIECE, "message_id": "m"}, number)
            await asyncio.sleep(0)

    monkeypatch.setattr(events, "follow", follow)
    return made


def following(socket: Socket, user: Any) -> None:
    """Ask for what is told, without reading it."""
    socket.tell("follow", message_id=answered(user, "Hi").pk.hex)


def settled(told: list[int]) -> int:
    """How many pieces were made when no more are."""
    pause, before = threading.Event(), -1
    while len(told) != before or not before:
        before = len(told)
        pause.wait(0.3)
    return before


def memory() -> int:
    """Resident bytes of this process, the server's."""
    return psutil.Process().memory_info().rss


def ask_for(row: Any) -> bytes:
    return frame(f'{{"type": "follow", "message_id": "{row.pk.hex}"}}')


def test_who_does_not_read_is_not_written_for(server, key, user, told, socket):
    with deaf(server, key) as connection:
        connection.sendall(ask_for(answered(user, "Hi")))
        assert settled(told) < PIECES / 2

        following(socket, user)  # who reads is served meanwhile
        for _ in range(PIECES):
            socket.hear_text()
        assert len(told) < PIECES * 1.5


def test_who_reads_again_gets_everything(server, key, user, told):
    with deaf(server, key) as connection:
        connection.sendall(ask_for(answered(user, "Hi")))
        settled(told)
        total = 0
        while total < PIECES * len(PIECE):
            total += len(connection.recv(1 << 16))
        eventually(lambda: len(told) == PIECES)


def test_who_reads_nothing_for_long_is_cut_off(server, key, user, told, monkeypatch):
    monkeypatch.setattr(flow, "STALLED", 0.2)
    with deaf(server, key) as connection:
        connection.sendall(ask_for(answered(user, "Hi")))
        eventually(lambda: len(told) > 0)
        eventually(lambda: readers.total == 0)
        until_cut(connection)
        assert len(told) < PIECES


def test_for_who_is_gone_nothing_is_made_while_that_is_dealt_with(
    server, key, user, told, monkeypatch
):
    go_on = threading.Event()

    async def slow() -> None:  # before and after an application hears of its end
        if told:
            await asyncio.to_thread(go_on.wait, 10)

    monkeypatch.setattr("channels.consumer.aclose_old_connections", slow)
    monkeypatch.setattr("channels.generic.websocket.aclose_old_connections", slow)
    with deaf(server, key) as connection:
        connection.sendall(ask_for(answered(user, "Hi")))
        eventually(lambda: len(told) > 0)
    made = settled(told)
    go_on.set()

    assert made < PIECES / 2
    eventually(lambda: readers.total == 0)


def test_a_message_may_be_as_large_as_a_body(socket, engine):
    frame = '{"type": "ping", "id": ""}'
    socket.connection.send(frame + " " * (settings.LLMSITE_MAX_BODY - len(frame)))
    assert socket.hear()["type"] == "pong"
    socket.connection.send(frame + " " * (settings.LLMSITE_MAX_BODY - len(frame) + 1))
    assert socket.closed() == 1009


def test_many_messages_at_once_are_heard(socket):
    for number in range(20):
        socket.tell("ping", id=str(number))
    heard = {socket.hear()["id"] for _ in range(20)}
    assert heard == {str(number) for number in range(20)}


def test_who_sends_faster_than_it_is_listened_to_is_ended(server, key, engine):
    flood = frame('{"type": "ping"}') * (MOST_MESSAGES * 20)
    with deaf(server, key) as connection:
        with suppress(ConnectionError):
            connection.sendall(flood)
        heard = until_cut(connection)
    assert heard.count(b"pong") < MOST_MESSAGES * 20
    with socket_to(server, key) as other:
        other.tell("ping")
        assert other.hear()["type"] == "pong"


def test_who_goes_on_talking_after_its_end_keeps_no_place(server, key):
    with deaf(server, key) as connection:
        connection.sendall(BINARY + frame('{"type": "ping"}') * (2 * consumers.WAITING))
        assert UNSUPPORTED in connection.recv(1 << 12)

    eventually(lambda: readers.total == 0)


def test_what_waits_when_a_socket_is_closed_is_not_begun(server, key, engine, monkeypatch):
    hold, ping = Hold(), socket_replies.HANDLERS["ping"]
    monkeypatch.setitem(
        socket_replies.HANDLERS, "ping", lambda *arguments: (hold(), ping(*arguments))[1]
    )
    with deaf(server, key) as connection:
        ask = frame('{"type": "ask", "prompt": "Say it"}')
        connection.sendall(frame('{"type": "ping"}') + ask + BINARY)
        assert hold.reached.wait(10)
        assert UNSUPPORTED in connection.recv(1 << 12)
        hold.released.set()
        until_cut(connection)

    assert not Prompt.objects.exists()


def test_what_a_client_says_is_not_lost_while_a_thread_is_slow(socket, monkeypatch):
    let_go = threading.Event()
    ping = socket_replies.HANDLERS["ping"]

    def slow(*arguments: Any) -> Any:
        assert let_go.wait(10)
        return ping(*arguments)

    monkeypatch.setitem(socket_replies.HANDLERS, "ping", slow)
    for number in range(8):
        socket.tell("ping", id=str(number))
    let_go.set()
    assert {socket.hear()["id"] for _ in range(8)} == {str(number) for number in range(8)}


def test_what_a_client_says_before_it_is_let_in_ends_it(server, key, monkeypatch):
    asked, let_go = threading.Event(), threading.Event()
    identify = consumers.identify

    def slow(scope: Any) -> Any:
        asked.set()
        assert let_go.wait(10)
        return identify(scope)

    monkeypatch.setattr(consumers, "identify", slow)
    with deaf(server, key, waiting=False) as connection:
        assert asked.wait(10)
        connection.sendall(frame('{"type": "ping"}'))
        connection.settimeout(3)  # shorter than what daphne grants a handshake
        assert until_cut(connection) == b""
    let_go.set()


def test_pings_of_who_does_not_read_are_not_answered(server, key, user, told, monkeypatch):
    monkeypatch.setattr("llmsite.sockets.REST", 0)
    with deaf(server, key) as connection:
        connection.sendall(ask_for(answered(user, "Hi")))
        settled(told)
        before = memory()
        ping = bytes([0x89, 0x80 | 125, 0, 0, 0, 0]) + b"x" * 125
        for _ in range(64):
            connection.sendall(ping * 4096 + frame('{"type": "ping"}'))  # 32 MiB of pings
        assert memory() - before < 16 << 20


def test_a_handshake_is_answered_however_long_that_takes(server, key, monkeypatch):
    hold, identify = Hold(), consumers.identify
    monkeypatch.setattr(consumers, "identify", lambda scope: hold() or identify(scope))
    released = threading.Timer(DAPHNES_PATIENCE + 1, hold.released.set)
    released.start()
    with socket_to(server, key) as opened:
        opened.tell("ping")
        assert opened.hear()["type"] == "pong"
