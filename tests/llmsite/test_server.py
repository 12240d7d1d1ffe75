"""daphne with the limits: what a client on a real socket meets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.conf import settings

from chat.models import Prompt
from tests.chat.refusals import named
from tests.fakes import ScriptedEngine


@pytest.mark.parametrize("path", ["/chat/new/message/", "/v1/chat/completions", "/nothing"])
def test_two_mebibytes_from_nobody_are_413_and_not_401(client_for, path):
    answer = client_for(None).post(path, content=b"x" * (2 << 20))

    assert (answer.status_code, named(answer)[0]) == (413, "body_too_large")


def test_the_limit_is_a_mebibyte_to_the_byte(api, serve):
    serve(ScriptedEngine("Hi", context_length=4 << 20))
    headers = {"Content-Type": "application/json"}
    frame = json.dumps({"prompt": ""})
    prompt = "x" * (settings.LLMSITE_MAX_BODY - len(frame))
    exact = json.dumps({"prompt": prompt})
    assert len(exact) == 1 << 20

    assert api.post("/chat/new/message/", content=exact, headers=headers).status_code == 200
    assert len(Prompt.objects.get().content) == len(prompt)
    longer = api.post("/chat/new/message/", content=exact + " ", headers=headers)
    assert longer.status_code == 413


def test_a_body_in_chunks_of_no_declared_length_is_read(api, engine):
    def pieces() -> Iterator[bytes]:
        yield b'{"prompt": '
        yield b'"Say it"}'

    headers = {"Content-Type": "application/json"}
    answer = api.post("/chat/new/message/", content=pieces(), headers=headers)

    assert answer.json()["response"] == "Hello, world"


def test_a_body_in_chunks_is_counted(api, engine):
    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * (1 << 16)

    answer = api.post("/chat/new/message/", content=pieces())
    assert answer.status_code == 413


def test_a_client_that_announces_too_much_is_refused_before_it_sends(server):
    with connected(server) as connection:
        connection.sendall(head("/v1/models", "Content-Length: 62914560"))
        answer = connection.recv(4096).decode()

    start, body = answer.split("\r\n\r\n")
    assert start.startswith("HTTP/1.1 413 ")
    assert "Connection: close" in start
    assert json.loads(body)["error"]["code"] == "body_too_large"


def test_what_a_refused_client_still_sends_is_dropped_and_its_connection_ends(server):
    with connected(server) as connection:
        connection.sendall(head("/chat/new/message/", f"Content-Length: {2 << 20}"))
        connection.sendall(b"x" * (2 << 20))
        answer = read_all(connection)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_client_that_sends_too_slowly_is_refused(server, settings):
    settings.LLMSITE_BODY_SECONDS = 0.05
    with connected(server) as connection:
        connection.sendall(head("/chat/new/message/", "Content-Length: 100") + b"{")
        answer = read_all(connection)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body_timeout" in answer


def test_an_answer_may_take_longer_than_a_body(api, serve, gate, settings):
    settings.LLMSITE_BODY_SECONDS = 0.05
    serve(ScriptedEngine("Hi", gate=gate))
    body = {"prompt": "a", "stream": True}
    with api.stream("POST", "/chat/new/message/", json=body) as response:
        assert not gate.wait(0.2)  # the deadline of a body passes
        gate.set()
        assert b"event: done" in response.read()


def test_a_connection_is_used_again(api, engine):
    for _ in range(3):
        assert api.post("/chat/new/message/", json={"prompt": "a"}).status_code == 200


@contextmanager
def connected(server) -> Iterator[socket.socket]:
    """A connection whose client does as it likes."""
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        yield connection


def head(path: str, *headers: str) -> bytes:
    """The beginning of a request with a body."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    while part := connection.recv(4096):
        received += part
    return received
