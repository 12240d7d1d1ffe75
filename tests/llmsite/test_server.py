"""daphne with the limits: what a client on a real socket meets."""

from __future__ import annotations

import json
import socket
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from django.conf import settings
from twisted.internet import reactor, task
from twisted.internet.threads import blockingCallFromThread

from chat.models import Prompt
from llmsite import arrivals
from tests.chat.refusals import named
from tests.fakes import ScriptedEngine
from tests.web import eventually


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


@pytest.mark.parametrize(("length", "interim"), [(62914560, False), (1000, True)])
def test_a_client_that_asks_before_it_sends_is_told_one_thing(server, settings, length, interim):
    settings.LLMSITE_BODY_SECONDS = 0.5
    with connected(server) as connection:
        told = (f"Content-Length: {length}", "Expect: 100-continue")
        connection.sendall(head("/chat/new/message/", *told))
        answer = read_all(connection)

    assert answer.startswith(b"HTTP/1.1 100 " if interim else b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1") == (2 if interim else 1)


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


@pytest.mark.parametrize("origin", ["https://chat.example.org", "https://evil.example"])
def test_a_page_of_a_named_origin_may_read_that_it_sent_too_slowly(server, settings, origin):
    settings.LLMSITE_BODY_SECONDS = 0.05
    settings.CORS_ALLOWED_ORIGINS = ["https://chat.example.org"]
    with connected(server) as connection:
        announced = ("Content-Length: 100", f"Origin: {origin}")
        connection.sendall(head("/chat/new/message/", *announced) + b"{")
        answer = read_all(connection).decode()

    assert answer.startswith("HTTP/1.1 408 ")
    leave = f"access-control-allow-origin: {origin}\r\n"
    assert (leave in answer) == (origin == "https://chat.example.org")


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


def test_nobody_parses_a_form_before_django_is_asked(server):
    part = b'--x\r\nContent-Disposition: form-data; name="' + b";" * 60_000 + b'"\r\n\r\n1\r\n--x--'
    begun = time.process_time()
    answer = httpx.post(
        f"{server.address}/chat/new/message/",
        content=part,
        headers={"Content-Type": "multipart/form-data; boundary=x"},
        timeout=30,
    )

    assert answer.status_code == 401
    assert time.process_time() - begun < 1, "a parser of parts takes seconds, quadratically"


@pytest.fixture
def few_arrivals(monkeypatch) -> task.Clock:
    """Two connections may wait for their head; the clock is the test's."""
    clock = task.Clock()
    monkeypatch.setattr(arrivals, "most", lambda: 2)
    monkeypatch.setattr(arrivals, "clock", clock)
    monkeypatch.setattr(arrivals.arrivals, "_waiting", OrderedDict())
    return clock


def test_of_too_many_clients_that_do_not_ask_the_first_one_goes(server, few_arrivals):
    with connected(server) as first, connected(server) as second:
        first.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: a")
        second.sendall(b"GET /v1/models HTTP/1.1\r\n")
        eventually(lambda: len(arrivals.arrivals._waiting) == 2)
        with connected(server) as third:
            with suppress(ConnectionResetError):
                assert read_all(first) == b""
            third.sendall(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert third.recv(4096).startswith(b"HTTP/1.1 401 "), "who asks is answered"
        second.sendall(b"Host: 127.0.0.1\r\n\r\n")
        assert second.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_whose_body_does_not_come_has_not_asked(server, few_arrivals):
    announced = head("/chat/new/message/", "Content-Length: 50")
    with connected(server) as first, connected(server) as second:
        first.sendall(announced)
        second.sendall(announced)
        eventually(lambda: len(arrivals.arrivals._waiting) == 2)
        with connected(server) as third:
            assert read_all(first) == b""
            third.sendall(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert third.recv(4096).startswith(b"HTTP/1.1 401 ")
        second.sendall(b"x" * 50)
        assert second.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_who_still_reads_an_answer_is_not_the_one_that_goes(server, few_arrivals, monkeypatch):
    monkeypatch.setattr(arrivals, "_has_sent", lambda channel: channel is not reader[0])
    reader: list[Any] = [None]
    with connected(server) as first:
        first.sendall(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert first.recv(4096).startswith(b"HTTP/1.1 401 ")
        reader[0] = eventually(lambda: next(iter(arrivals.arrivals._waiting), None))
        with connected(server) as second:
            eventually(lambda: len(arrivals.arrivals._waiting) == 2)
            with connected(server):
                assert read_all(second) == b""
                assert reader[0] in arrivals.arrivals._waiting


def test_nobody_says_below_which_path_this_is_served(server):
    with connected(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nDaphne-Root-Path: /x\xff\r\n\r\n")
        answer = connection.recv(4096)
    assert b"302" in answer.split(b"\r\n")[0]
    assert b"Location: /login/?next=/\r\n" in answer


def test_a_head_that_comes_byte_by_byte_has_so_long(server, few_arrivals):
    with connected(server) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\n")
        eventually(lambda: arrivals.arrivals._waiting)
        slow.sendall(b"X-Slow: a\r\n")
        reactor.callFromThread(few_arrivals.advance, arrivals.HEAD_WITHIN + 1)
        with suppress(ConnectionResetError):
            assert read_all(slow) == b""


def test_an_answer_may_take_longer_than_a_head(api, serve, gate, few_arrivals):
    serve(ScriptedEngine(gate=gate))
    body = {"prompt": "Say it", "stream": True}
    with api.stream("POST", "/chat/new/message/", json=body) as answer:
        blockingCallFromThread(reactor, few_arrivals.advance, arrivals.HEAD_WITHIN + 1)
        gate.set()
        assert b"event: done" in answer.read()


def test_a_body_has_a_deadline_of_its_own(server, few_arrivals):
    with connected(server) as slow:
        slow.sendall(head("/chat/new/message/", "Content-Length: 50"))
        waiting = arrivals.arrivals._waiting
        eventually(lambda: waiting and not any(timer.active() for timer in waiting.values()))
        blockingCallFromThread(reactor, few_arrivals.advance, arrivals.HEAD_WITHIN + 1)
        slow.sendall(b"x" * 50)
        assert slow.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_who_was_answered_may_not_stay_silent_for_ever(server, few_arrivals):
    with connected(server) as kept:
        kept.sendall(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert kept.recv(4096).startswith(b"HTTP/1.1 401 ")
        eventually(lambda: arrivals.arrivals._waiting)
        blockingCallFromThread(reactor, few_arrivals.advance, arrivals.HEAD_WITHIN + 1)
        assert b"HTTP/1.1" not in read_all(kept), "the rest of that answer, and the end"


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        ("/sendMessage?prompt=" + "%E4%BD%A0" * 2000, "", 414),
        ("/v1/" + "x" * 300_000, "", 414),
        ("/v1/models", "X-Long: " + "x" * 20_000, 431),
        ("/sendMessage?prompt=" + "x" * 16_000, "X-Long: " + "x" * 1000, 431),
    ],
)
def test_a_head_that_is_too_long_is_refused_in_a_sentence(server, path, header, status):
    with connected(server) as connection:
        connection.sendall(head(path, header or "X-Short: x"))
        answer = read_all(connection).decode()

    start, body = answer.split("\r\n\r\n")
    assert start.startswith(f"HTTP/1.1 {status} ")
    problem = json.loads(body)
    sentence = problem["error"]["message"] if path.startswith("/v1/") else problem["detail"]
    assert "longer than 16384 bytes" in sentence


def test_who_sent_too_long_a_head_has_so_long_to_read_why(server, few_arrivals):
    with connected(server) as connection:
        connection.sendall(head("/sendMessage?prompt=" + "x" * 20_000))
        assert read_all(connection).startswith(b"HTTP/1.1 414 ")
        waiting = arrivals.arrivals._waiting
        assert waiting
        blockingCallFromThread(reactor, few_arrivals.advance, arrivals.HEAD_WITHIN + 1)
        eventually(lambda: not waiting)


def head(path: str, *headers: str) -> bytes:
    """The beginning of a request with a body."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (head("/sendMessage?prompt=café"), "percent-encode"),
        (b"GET /sendMessage?prompt=caf\xa0 HTTP/1.1\r\n", "percent-encode"),
        (b"GET /caf\xa0 HTTP/1.1\r\n", "percent-encode"),
        (head("/sendMessage?prompt=a b"), "malformed"),
        (head("/chat/new/message/", "no header"), "malformed"),
        (head("/chat/new/message/", "Content-Length: " + "9" * 5000), "malformed"),
        (head("/chat/new/message/", CHUNKED, "Content-Length: 5"), "malformed"),
        (head("/chat/new/message/", CHUNKED) + b"no length\r\n", "malformed"),
        (b"\x16\x03\x01 as TLS begins\r\n", "malformed"),
    ],
)
def test_what_is_no_request_is_refused_in_a_sentence(server, request_, told):
    with connected(server) as connection:
        connection.sendall(request_)
        start, _, body = read_all(connection).partition(b"\r\n\r\n")

    assert start.startswith(b"HTTP/1.1 400 ")
    assert told in json.loads(body)["detail"]


def test_nothing_comes_behind_a_refusal(server, settings):
    settings.LLMSITE_MAX_BODY = 10
    with connected(server) as connection:
        connection.sendall(head("/v1/models", CHUNKED) + b"14\r\n" + b"x" * 20 + b"\r\nzz\r\n")
        answers = read_all(connection)
    assert answers.startswith(b"HTTP/1.1 413 ")
    assert answers.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("scheme", [b"http", b"HTTPS"])
def test_a_target_may_be_a_whole_address(server, scheme):
    target = scheme + b"://127.0.0.1/v1/models"
    with connected(server) as connection:
        connection.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


@contextmanager
def connected(server) -> Iterator[socket.socket]:
    """A connection whose client does as it likes."""
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    while part := connection.recv(4096):
        received += part
    return received
