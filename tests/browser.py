"""A real browser for tests: Chromium, signed in, with everything it complains about noted down.

Use it as a plugin: `pytest_plugins = ["tests.browser"]`. Only in plain functions: while
Playwright's synchronous API runs, its thread looks as if it had a running event loop.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.web import ServerThread

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 15_000  # milliseconds until an expected sight is missing


def chromium() -> str | None:
    """The browser to use: CHROMIUM, else the first one installed."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for one module: pytest-asyncio's tests elsewhere need their thread back."""
    path = chromium()
    if path is None:
        pytest.skip("no chromium or google-chrome is installed, and CHROMIUM names none")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright's loop sleeps beneath these tests; Django takes it for an async caller.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        opened = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def problems() -> list[str]:
    """What the page complained about. A test that provokes complaints clears it."""
    return []


@pytest.fixture
def context(
    browser: Browser, server: ServerThread, problems: list[str]
) -> Iterator[BrowserContext]:
    """A fresh profile. Fails its test at the end if there were problems."""
    made = browser.new_context(base_url=server.address, viewport={"width": 1280, "height": 800})
    made.set_default_timeout(PATIENCE)
    watch(made, problems)
    yield made
    made.close()
    assert problems == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A tab of somebody who is not signed in."""
    return context.new_page()


@pytest.fixture
def staff(user: Any) -> Any:
    """ada as an administrator: only staff can pass the admin's login."""
    user.is_staff = user.is_superuser = True
    user.save()
    return user


@pytest.fixture
def signed_in(context: BrowserContext, staff: Any, server: ServerThread) -> Page:
    """A tab of ada's. The cookie is good on every port of this host."""
    client = Client()
    client.force_login(staff)
    session = client.cookies["sessionid"].value
    context.add_cookies([{"name": "sessionid", "value": session, "url": server.address}])
    return context.new_page()


def watch(context: BrowserContext, problems: list[str]) -> None:
    """Note console errors (a CSP violation is one), exceptions, and requests to other hosts."""

    def note_console(message: Any) -> None:
        # The admin has no icon of its own, and browsers ask for one.
        if message.type == "error" and not message.location["url"].endswith("/favicon.ico"):
            problems.append(f"{message.text} ({message.location['url']})")

    def note_request(request: Any) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob") and address.hostname != "127.0.0.1":
            problems.append(f"a request for {request.url}")

    context.on("console", note_console)
    context.on("weberror", lambda error: problems.append(str(error.error)))
    context.on("request", note_request)


UNAVAILABLE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class CuttingProxy:
    """A TCP relay in front of the server that drops its connections on command.

    heads: the first bytes of every request, which is where its method, path and headers are.
    deaf: what the server says is dropped.
    """

    def __init__(self, address: str) -> None:
        self._target = (urlsplit(address).hostname, urlsplit(address).port)
        self._open: list[socket.socket] = []
        self._unavailable = False
        self.deaf = False
        self.heads: list[str] = []
        self._listen(0)

    def cut(self) -> None:
        """Drop every connection of this moment."""
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        """Cut, and listen no more: connections are refused."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
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
        threading.Thread(target=self._accept, daemon=True).start()

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


@pytest.fixture
def proxy(server: ServerThread, context: BrowserContext) -> Iterator[CuttingProxy]:
    """A connection to the server that can be cut."""
    relay = CuttingProxy(server.address)
    yield relay
    context.close()  # first the pages: what they still ask would be refused, and noted
    relay.close()
