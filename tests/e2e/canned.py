"""A server that says what a test wrote down, to hear what a client makes of it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
SILENCE = b""
RESPONSE = "d34fa13e95d64c3486cb5733641c9ed0"


@dataclass(frozen=True)
class Heard:
    """A request: its first line, its head and body as they came, and when."""

    line: str
    text: str
    at: float


class Canned:
    """Each connection gets the next answer, the last one again and again, and is closed.

    SILENCE in an answer lasts until the client has closed the connection.
    """

    def __init__(self, *answers: list[bytes]) -> None:
        self._answers = answers
        self.heard: list[Heard] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                # What is written goes out as it is written: a character may be torn.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with connection, suppress(ConnectionError):
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        text = request_of(connection)
        if not text:
            return  # Node opens a connection now and then that it does not use
        self.heard.append(Heard(text.partition("\r\n")[0], text, time.monotonic()))
        for part in self._answers[min(len(self.heard), len(self._answers)) - 1]:
            connection.sendall(part)
            if part is SILENCE:
                connection.recv(1)


@contextmanager
def canned(*answers: list[bytes]) -> Iterator[Canned]:
    """For as long as the block lasts."""
    made = Canned(*answers)
    try:
        yield made
    finally:
        made.close()


def request_of(connection: socket.socket) -> str:
    """A whole request; nothing from a client that left without one."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return ""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while lengths and len(body) < int(lengths[0].partition(b":")[2]):
        body += connection.recv(65536)
    return (head + b"\r\n\r\n" + body).decode()


def refusal(status: int, *headers: str) -> list[bytes]:
    """A problem with this status."""
    body = json.dumps({"detail": f"This is {status}.", "code": "a_code"})
    lines = [f"HTTP/1.1 {status} Whatever", "Connection: close", f"Content-Length: {len(body)}"]
    return ["\r\n".join([*lines, *headers, "", body]).encode()]


def stream(data: bytes, *, step: int = 1 << 20, whole: bool = True) -> list[bytes]:
    """An event stream in chunks of so many bytes; one that is not whole breaks off."""
    parts = (data[at : at + step] for at in range(0, len(data), step))
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
    return [STREAM, *chunks, *([END] if whole else [])]


def event(name: str, cursor: int, **data: object) -> bytes:
    """One of ours."""
    named = f"event: {name}\n" if name else ""
    told = json.dumps({**data, "message_id": RESPONSE}, ensure_ascii=False)
    return f"{named}id: {RESPONSE}:{cursor}\ndata: {told}\n\n".encode()
