"""What the chat page says of its model: loading, failed, ready, lost."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from modelhost.errors import LoadFailed
from modelhost.host import Host
from modelhost.types import ModelSpec
from tests.chat.handling import Late, answer, ask, button, ended
from tests.fakes import ScriptedEngine, Turnstile

pytest_plugins = ["tests.browser"]

WHY = "/srv/models/chat is no model: " + "its folder lacks config.json and " * 6 + "more."
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"


@pytest.fixture
def loading(monkeypatch) -> Iterator[Callable[[], None]]:
    """The model's load has come to a quarter. Call it, and the load fails."""
    begun, failing = threading.Event(), threading.Event()

    def load(spec, progress):
        progress.begin("reading", total=4, unit="B")
        progress.advance(1)
        begun.set()
        failing.wait(60)
        raise LoadFailed(WHY)

    host = Host(load)
    monkeypatch.setattr("chat.monitoring.health.host", host)
    host.start(ModelSpec())
    assert begun.wait(10)
    yield failing.set
    failing.set()


def look(page: Page, width: int) -> None:
    """Everything is on the screen: nothing has to be scrolled sideways."""
    page.set_viewport_size({"width": width, "height": 780})
    assert page.evaluate(OVERFLOW) <= 0
    expect(button(page, "Send")).to_be_in_viewport(ratio=1)


def test_the_page_keeps_to_its_width_whatever_the_model_does(signed_in, loading, problems):
    signed_in.goto("/")
    readiness, progress = signed_in.locator("#readiness"), signed_in.get_by_role("progressbar")
    expect(readiness).to_have_attribute("data-state", "loading")
    for width in (390, 768, 1280):
        look(signed_in, width)
        expect(progress).to_be_visible()
    loading()
    expect(readiness).to_have_attribute("data-state", "failed")
    expect(signed_in.locator("#model")).to_have_text(WHY)
    for width in (390, 768, 800, 1280):
        look(signed_in, width)
        expect(progress).to_be_hidden()
    assert signed_in.get_by_role("heading", level=1).bounding_box()["width"] > 200
    signed_in.goto("about:blank")  # it asks every second
    problems.excuse("status of 503")


def test_a_model_that_is_not_ready_is_waited_for(signed_in, serve, problems):
    signed_in.goto("/")
    expect(signed_in.locator("#model")).to_have_text("No model has been loaded.")
    ask(signed_in, "Too early")
    notice = signed_in.get_by_role("alert")
    expect(notice).to_have_text("No model has been loaded.")
    expect(signed_in.get_by_label("Your prompt")).to_have_value("Too early")

    serve(ScriptedEngine())
    expect(signed_in.locator("#model")).to_have_text("scripted-model")
    expect(notice).to_have_text("The model is ready now.")
    button(signed_in, "Send").click()
    expect(answer(signed_in)).to_have_text("Hello, world")
    expect(notice).to_be_hidden()
    ended(signed_in)
    problems.excuse("status of 503")


def test_a_server_that_is_lost_is_not_called_ready(signed_in, proxy, serve, problems):
    turnstile = Turnstile()
    serve(ScriptedEngine(gate=turnstile))
    signed_in.goto(proxy.address)
    ask(signed_in, "Say it")
    turnstile.admit()
    expect(answer(signed_in)).to_have_text("Hello")
    expect(signed_in.locator("#model")).to_have_text("scripted-model")

    proxy.close()
    expect(signed_in.locator("#model")).to_have_text("The server cannot be reached.")
    expect(signed_in.locator("#readiness")).to_have_attribute("data-state", "unreachable")
    proxy.reopen()
    turnstile.set()
    ended(signed_in)
    expect(signed_in.locator("#model")).to_have_text("scripted-model")
    problems.excuse("net::ERR_")


def test_a_server_that_is_lost_behind_an_answer_is_not_called_ready(
    signed_in, proxy, serve, problems
):
    turnstile = Turnstile()
    serve(ScriptedEngine(gate=turnstile))
    signed_in.goto(proxy.address)
    expect(signed_in.locator("#model")).to_have_text("scripted-model")
    with signed_in.expect_response(re.compile("/events")):
        ask(signed_in, "Say it")

    ready = {"status": "ready", "model": "still there"}
    signed_in.route("**/readyz", lambda route: route.fulfill(json=ready), times=1)
    with signed_in.expect_response(re.compile("/readyz")) as look:
        proxy.close()
    assert look.value.json() == ready
    expect(signed_in.locator("#model")).to_have_text("The server cannot be reached.")
    turnstile.set()
    problems.excuse("net::ERR_")


def test_a_model_that_is_gone_is_noticed_when_something_is_asked(signed_in, serve, problems):
    engine = serve(ScriptedEngine())
    signed_in.goto("/")
    expect(signed_in.locator("#model")).to_have_text("scripted-model")
    engine.alive = False
    ask(signed_in, "Say it")
    expect(signed_in.locator("#readiness")).to_have_attribute("data-state", "stopped")
    engine.alive = True
    ended(signed_in)
    problems.excuse("status of 503")


def test_a_look_that_arrives_late_does_not_call_a_model_ready_that_is_gone(
    signed_in, serve, problems
):
    engine = serve(ScriptedEngine())
    late = Late(signed_in, "**/readyz")
    signed_in.goto("/")
    late.made()
    engine.alive = False
    ask(signed_in, "Say it")
    readiness = signed_in.locator("#readiness")
    expect(readiness).to_have_attribute("data-state", "stopped")
    late.arrive()

    expect(signed_in.get_by_role("alert")).to_have_text("The engine is not running.")
    expect(readiness).to_have_attribute("data-state", "stopped")
    engine.alive = True
    ended(signed_in)
    problems.excuse("status of 503")


def test_a_server_that_came_back_is_not_asked_for_ever(signed_in, proxy, engine, problems):
    signed_in.clock.install()
    signed_in.goto(proxy.address)
    ask(signed_in, "Say it")
    ended(signed_in)
    proxy.fail()
    signed_in.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(signed_in.locator("#status")).to_have_text("Reconnecting …")
    button(signed_in, "New conversation").click()  # what was not read is not asked for any more
    proxy.recover()

    asked = []
    signed_in.on("request", lambda request: asked.append("/readyz" in request.url))
    for _ in range(20):
        signed_in.clock.run_for(1000)
        signed_in.evaluate("fetch('/healthz')")  # as long as a look takes
    ended(signed_in)
    assert sum(asked) <= 3
    problems.excuse("net::ERR_", "status of 502")
