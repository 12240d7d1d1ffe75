"""Frames of a WebSocket that say nothing, and as many of them as its client can send."""

from __future__ import annotations

import httpx
import pytest

from chat.limits.readers import readers
from llmsite import sockets
from llmsite.sockets import MOST_RESTS, STEPS
from tests.sockets import deaf, frame, until_cut
from tests.web import eventually

PONG = bytes([0x8A, 0x80, 0, 0, 0, 0])  # nobody asked for it
BEGIN, GOES_ON = bytes([0x01, 0x80, 0, 0, 0, 0]), bytes([0x00, 0x80, 0, 0, 0, 0])


def test_a_client_waits_while_its_socket_rests_and_nobody_else_does(server, key, monkeypatch):
    monkeypatch.setattr(sockets, "REST", 2)
    with deaf(server, key) as connection:
        connection.sendall(PONG * STEPS + frame('{"type": "ping"}'))
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            connection.recv(1 << 12)
        assert httpx.get(f"{server.address}/healthz").status_code == 200
    eventually(lambda: readers.total == 0)  # behind its rest it is seen that the client is gone


def test_what_is_said_behind_many_empty_frames_is_heard(server, key):
    ping = bytearray(frame('{"type": "ping"}'))
    ping[0] = 0x80  # the end of a message in parts
    with deaf(server, key) as connection:
        connection.sendall(PONG * STEPS + BEGIN + GOES_ON * 4 * STEPS + ping + b"\x88")
        assert b'{"type": "pong"' in connection.recv(1 << 12)


@pytest.mark.parametrize("nothing", [PONG, GOES_ON])
def test_who_says_nothing_for_too_long_is_ended(server, key, nothing):
    with deaf(server, key) as connection:
        connection.sendall(BEGIN + nothing * (MOST_RESTS + 2) * STEPS)
        assert (4429).to_bytes(2) in until_cut(connection)
    eventually(lambda: readers.total == 0)


def test_a_protocol_with_an_odd_name_is_refused_without_a_word_in_the_log(server, key, caplog):
    with deaf(server, key, waiting=False, protocol="\xff") as connection:
        assert b" 400 " in until_cut(connection)
    assert not caplog.records
