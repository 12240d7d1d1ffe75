"""A real browser for tests: Chromium, signed in, with everything it complains about noted down.

Use it as a plugin: `pytest_plugins = ["tests.browser"]`. Only in plain functions: while
Playwright's synchronous API runs, its thread looks as if it had a running event loop.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.cutting_proxy import CuttingProxy
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
expect.set_options(timeout=PATIENCE)


def chromium() -> str | None:
    """The browser to use: CHROMIUM, else the first one installed."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def launching() -> dict[str, Any]:
    """How Chromium is launched otherwise than Playwright does it."""
    return {}


@pytest.fixture(scope="module")
def browser(launching: dict[str, Any]) -> Iterator[Browser]:
    """Chromium, for one module: pytest-asyncio's tests elsewhere need their thread back."""
    path = chromium()
    if path is None:
        pytest.skip("no chromium or google-chrome is installed, and CHROMIUM names none")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright's loop sleeps beneath these tests; Django takes it for an async caller.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        opened = playwright.chromium.launch(executable_path=path, args=ARGUMENTS, **launching)
        yield opened
        opened.close()


class Problems(list[str]):
    """What the page complained about. A test that provokes complaints excuses them."""

    def __init__(self) -> None:
        super().__init__()
        self._excused: list[str] = []

    def excuse(self, *patterns: str) -> None:
        """Also those that come later: a browser writes them when it gets to it."""
        self._excused += patterns

    def left(self) -> list[str]:
        """Those that nothing excuses."""
        return [one for one in self if not any(re.search(part, one) for part in self._excused)]


@pytest.fixture
def problems() -> Problems:
    """What the page complained about."""
    return Problems()


@pytest.fixture
def context(browser: Browser, server: ServerThread, problems: Problems) -> Iterator[BrowserContext]:
    """A fresh profile. Fails its test at the end if there were problems that it did not excuse."""
    made = browser.new_context(base_url=server.address, viewport={"width": 1280, "height": 800})
    made.set_default_timeout(PATIENCE)
    watch(made, problems)
    yield made
    made.close()
    assert problems.left() == []


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


def watch(context: BrowserContext, problems: Problems) -> None:
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


@pytest.fixture
def proxy(server: ServerThread, context: BrowserContext) -> Iterator[CuttingProxy]:
    """A connection to the server that can be cut."""
    relay = CuttingProxy(server.address)
    yield relay
    context.close()  # first the pages: what they still ask would be refused, and noted
    relay.close()
