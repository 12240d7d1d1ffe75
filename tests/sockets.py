"""A client of the WebSocket over a real socket, by the library that many use."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

WITHIN = 10.0  # seconds until an expected message is missing

Message = dict[str, Any]


class Socket:
    """One open socket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def tell(self, kind: str, **fields: Any) -> None:
        """Send a message of this type."""
        self.connection.send(json.dumps({"type": kind, **fields}))

    def hear(self) -> Message:
        """The next message. Raises ConnectionClosed, TimeoutError."""
        heard: Message = json.loads(self.connection.recv(WITHIN))
        return heard

    def hear_or_close(self) -> Message | None:
        """The next message; None when the server closed, or its connection was cut."""
        try:
            return self.hear()
        except ConnectionClosed:
            return None

    def ask(self, prompt: str, **fields: Any) -> Message:
        """What comes back for a prompt; places in the queue of others are passed over."""
        self.tell("ask", prompt=prompt, **fields)
        return self.rest("accepted", "refused")[-1]

    def rest(self, *ends: str) -> list[Message]:
        """Every message until one of these types, or the end of a response; it included."""
        heard = [self.hear()]
        while heard[-1]["type"] not in (ends or ("done", "error")):
            heard.append(self.hear())
        return heard

    def hear_text(self) -> Message:
        """The next piece of text; places in the queue may come before."""
        return self.rest("text")[-1]

    def closed(self) -> int:
        """Read until the server closes, and with which code it did."""
        while self.hear_or_close() is not None:
            pass
        close = self.connection.protocol.close_rcvd
        return close.code if close else 1006


def said(messages: list[Message]) -> str:
    """What the pieces of text among them say together."""
    return "".join(message["text"] for message in messages if message["type"] == "text")


class Addressed(Protocol):
    """A server, wherever it runs."""

    @property
    def address(self) -> str: ...


@contextmanager
def socket_to(
    server: Addressed, key: str | None = None, *, path: str = "/ws/chat", **headers: str
) -> Iterator[Socket]:
    """An open socket. Raises InvalidStatus when it is refused."""
    sent = {name.title(): value for name, value in headers.items()}
    if key is not None:
        sent["Authorization"] = f"Bearer {key}"
    address = server.address.replace("http", "ws", 1) + path
    with connect(address, additional_headers=sent, open_timeout=WITHIN) as connection:
        yield Socket(connection)


def deaf(
    server: Addressed, key: str, *, waiting: bool = True, protocol: str = "chat"
) -> socket.socket:
    """A socket whose client reads nothing after the handshake, or does not wait even for that."""
    host, port = server.address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.settimeout(10)
    head = [
        "GET /ws/chat HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {protocol}",
        f"Authorization: Bearer {key}",
    ]
    connection.sendall("\r\n".join([*head, "", ""]).encode("latin-1"))
    if waiting:
        assert b" 101 " in connection.recv(1 << 12)
    return connection


def until_cut(connection: socket.socket) -> bytes:
    """What still comes until the server ends the connection, however."""
    heard = b""
    with suppress(ConnectionError):
        while part := connection.recv(1 << 20):
            heard += part
    return heard


def frame(text: str) -> bytes:
    """A masked text frame (RFC 6455, section 5.2), its mask zero."""
    data = text.encode()
    assert len(data) < 126
    return bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data
