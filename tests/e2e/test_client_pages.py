"""The pages under examples/, in a real browser: one of our own origin, one of another."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import expect

from chat.models import Response
from tests.e2e.canned import event
from tests.e2e.places import ROOT
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually

pytest_plugins = ["tests.browser"]

FOLDER = ROOT / "examples"
PIECES = ("世", "界 ", "👋\n", "<b>", "é")


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of the folder, served as its page says."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(FOLDER)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def gate() -> Turnstile:
    return Turnstile()


@pytest.fixture
def same_origin(signed_in: Any, proxy: Any) -> Any:
    """The page as a proxy serves it in front of the server, at an address of the same origin."""
    address = f"{proxy.address}/ask.html"
    page = (FOLDER / "same-origin.html").read_text()
    signed_in.route(address, lambda route: route.fulfill(body=page, content_type="text/html"))
    signed_in.goto(address)
    return signed_in


@pytest.fixture
def other_origin(page: Any, proxy: Any, key: str, elsewhere: str, settings: Any) -> Any:
    """The page from elsewhere, told where to ask and with which key."""
    settings.CORS_ALLOWED_ORIGINS = [elsewhere]
    page.goto(f"{elsewhere}/other-origin.html")
    page.get_by_label("Address").fill(proxy.address)
    page.get_by_label("Key").fill(key)
    return page


@pytest.fixture(params=["same_origin", "other_origin"])
def asking(request: pytest.FixtureRequest, problems: Any, server: Any) -> Any:
    """Either page."""
    problems.excuse("ERR_", "502", "503", "favicon", "CORS")
    return request.getfixturevalue(request.param)


def ask(page: Any, prompt: str = "Hi") -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button").click()


def test_a_page_shows_the_answer_as_text(asking, serve):
    serve(ScriptedEngine(*PIECES))
    ask(asking)

    expect(asking.locator("#answer")).to_have_text("".join(PIECES), use_inner_text=True)
    expect(asking.get_by_role("status")).to_have_text("stop")
    assert Response.objects.get().text == "".join(PIECES)


def test_a_page_comes_back_behind_what_it_has(asking, proxy, serve, gate):
    engine = serve(ScriptedEngine(*PIECES, gate=gate))
    ask(asking)
    for count in range(1, 3):
        gate.admit()
        expect(asking.locator("#answer")).to_have_text("".join(PIECES[:count]))
        proxy.fail()
        expect(asking.get_by_role("status")).not_to_have_text("")
        proxy.recover()
    gate.set()

    expect(asking.get_by_role("status")).to_have_text("stop")
    assert asking.locator("#answer").text_content() == "".join(PIECES)
    assert (len(engine.prompts), Response.objects.count()) == (1, 1)


def test_a_page_that_heard_nothing_joins_what_it_began(same_origin, proxy, serve, gate, problems):
    problems.excuse("ERR_")
    engine = serve(ScriptedEngine(*PIECES, gate=gate))
    proxy.deaf = True
    ask(same_origin)
    eventually(lambda: engine.prompts)
    proxy.deaf = False
    proxy.cut()
    gate.set()

    expect(same_origin.get_by_role("status")).to_have_text("stop")
    assert same_origin.locator("#answer").text_content() == "".join(PIECES)
    assert (len(engine.prompts), Response.objects.count()) == (1, 1)


def test_a_page_that_lost_only_the_end_hears_how_it_ended(asking, proxy, serve, gate):
    serve(ScriptedEngine(*PIECES, gate=gate))
    ask(asking)
    gate.admit(len(PIECES))
    expect(asking.locator("#answer")).to_have_text("".join(PIECES), use_inner_text=True)
    proxy.fail()
    gate.set()
    eventually(lambda: not Response.objects.get().active)
    proxy.recover()

    expect(asking.get_by_role("status")).to_have_text("stop")
    assert asking.locator("#answer").text_content() == "".join(PIECES)


def test_a_page_says_that_a_response_failed(asking, serve):
    serve(ScriptedEngine(*PIECES, fail_at=2))
    ask(asking)

    expect(asking.get_by_role("status")).to_have_text("The engine died.")
    assert asking.locator("#answer").text_content() == "".join(PIECES[:2])


def test_a_page_goes_on_where_only_the_stream_failed(same_origin, engine):
    failed = event("error", 5, code="internal_error", detail="Something went wrong.")
    told = [event("", 5, text="Hello") + failed, event("done", 5, finish_reason="stop")]
    same_origin.route(
        "**/sendMessage?*",
        lambda route: route.fulfill(body=told.pop(0), content_type="text/event-stream"),
    )
    ask(same_origin)

    expect(same_origin.get_by_role("status")).to_have_text("stop")
    assert (same_origin.locator("#answer").text_content(), told) == ("Hello", [])


def test_a_page_says_why_it_is_refused(asking, engine, problems):
    problems.excuse("400")
    ask(asking, " ")

    expect(asking.get_by_role("status")).to_have_text(re.compile("Refused with 400: prompt: "))
    assert Response.objects.count() == 0
