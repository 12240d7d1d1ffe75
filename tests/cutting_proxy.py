"""A network between a browser and the server that breaks when a test says so."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

UNAVAILABLE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class CuttingProxy:
    """A TCP relay in front of the server that drops its connections on command.

    heads: the first bytes of every request, which is where its method, path and headers are.
    deaf: what the server says is dropped.
    """

    def __init__(self, address: str) -> None:
        self.lead_to(address)
        self._open: list[socket.socket] = []
        self._unavailable = False
        self.deaf = False
        self.heads: list[str] = []
        self._listen(0)

    def lead_to(self, address: str) -> None:
        """Where connections go from now on."""
        self._target = (urlsplit(address).hostname, urlsplit(address).port)

    def cut(self) -> None:
        """Drop every connection of this moment."""
        ends, self._open = self._open, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut, and listen no more: connections are refused."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()  # it may be in the middle of one more
        self.cut()

    def reopen(self) -> None:
        """Listen again, where it did before."""
        self._listen(urlsplit(self.address).port or 0)

    def fail(self) -> None:
        """Cut, and answer like a proxy whose server is gone, until `recover`."""
        self._unavailable = True
        self.cut()

    def recover(self) -> None:
        """Relay again."""
        self._unavailable = False
        self.cut()

    def _listen(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def requests(self, path: str) -> list[str]:
        """The heads of the requests whose line names this path."""
        return [head for head in self.heads if path in head.partition("\r\n")[0]]

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                if self._unavailable:
                    self._open.append(near)
                    self._refuse(near)
                    continue
                far = socket.create_connection(self._target)
                self._open += [near, far]
                self._relay(near, far, self._note)
                self._relay(far, near, lambda data: not self.deaf)

    def _note(self, data: bytes) -> bool:
        self.heads.append(data.decode("latin-1"))
        return True

    def _refuse(self, near: socket.socket) -> None:
        def run() -> None:
            with near, suppress(OSError):
                self.heads.append(near.recv(65536).decode("latin-1"))
                near.sendall(UNAVAILABLE)

        threading.Thread(target=run, daemon=True).start()

    def _relay(
        self, source: socket.socket, sink: socket.socket, passes: Callable[[bytes], bool]
    ) -> None:
        def run() -> None:
            with source, suppress(OSError):
                while data := source.recv(65536):
                    if passes(data):
                        sink.sendall(data)
            with suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=run, daemon=True).start()
