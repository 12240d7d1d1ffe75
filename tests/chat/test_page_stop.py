"""Stop on the chat page: an answer ends where it is, and the next prompt follows it."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from chat.models import Prompt, Response
from tests.chat.handling import answer, ask, asked, button, ended
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually

pytest_plugins = ["tests.browser"]


def test_stop_keeps_the_text_so_far(signed_in, serve):
    turnstile = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=turnstile))
    signed_in.goto("/")
    ask(signed_in, "Say it")
    turnstile.admit(2)
    expect(answer(signed_in)).to_have_text("Hello, ")
    with signed_in.expect_response(re.compile("/stop$")) as stopped:
        button(signed_in, "Stop").click()
    assert stopped.value.ok
    turnstile.admit(1)  # the engine hears of it when its next token comes

    for _ in range(2):  # as it happens, and from the record
        expect(signed_in.locator(".remark")).to_have_text("Stopped.")
        expect(answer(signed_in)).to_have_text("Hello, ")
        expect(button(signed_in, "Stop")).to_be_hidden()
        signed_in.reload()
    row = Response.objects.get()
    assert (row.status, row.finish_reason, row.text) == ("stopped", "cancelled", "Hello, ")

    turnstile.set()
    ended(signed_in)  # the reload's loading
    ask(signed_in, "Go on")
    expect(answer(signed_in, 1)).to_have_text("Hello, world")
    assert Prompt.objects.get(content="Go on").follows == row


def test_what_is_sent_right_after_stop_is_asked_at_the_end(signed_in, serve):
    turnstile = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=turnstile))
    signed_in.goto("/")
    ask(signed_in, "Say it")
    turnstile.admit(1)
    expect(answer(signed_in)).to_have_text("Hello")
    stops = []  # on their way to the server
    signed_in.route("**/stop", lambda route: stops.append(route))
    button(signed_in, "Stop").click()
    for _ in range(2):  # pressed twice, asked once
        ask(signed_in, "Go on")
    expect(signed_in.get_by_label("Your prompt")).to_have_value("Go on")
    stops[0].continue_()
    turnstile.admit(1)
    expect(signed_in.locator(".remark")).to_have_text("Stopped.")
    turnstile.set()
    expect(asked(signed_in)).to_have_text(["Say it", "Go on"])
    expect(signed_in.get_by_label("Your prompt")).to_have_value("")
    expect(answer(signed_in)).to_have_text("Hello, world")
    ended(signed_in)
    assert Prompt.objects.get(content="Go on").follows.status == "stopped"
    assert Prompt.objects.count() == 2


def test_stop_works_after_a_reload_and_by_keyboard(signed_in, serve):
    turnstile = Turnstile()
    serve(ScriptedEngine(gate=turnstile))
    signed_in.goto("/")
    ask(signed_in, "Say it")
    turnstile.admit(1)
    expect(answer(signed_in)).to_have_text("Hello")
    signed_in.reload()
    expect(button(signed_in, "Stop")).to_be_enabled()
    expect(signed_in.get_by_label("Your prompt")).to_be_focused()
    signed_in.keyboard.press("Tab")
    expect(button(signed_in, "Stop")).to_be_focused()
    with signed_in.expect_response(re.compile("/stop$")):
        signed_in.keyboard.press("Enter")
    turnstile.set()
    expect(signed_in.locator(".remark")).to_have_text("Stopped.")
    expect(signed_in.get_by_label("Your prompt")).to_be_focused()


def test_stop_holds_for_whoever_opens_something_else_at_once(signed_in, serve):
    turnstile = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=turnstile))
    signed_in.goto("/")
    ask(signed_in, "Say it")
    turnstile.admit()
    expect(answer(signed_in)).to_have_text("Hello")
    on_its_way = []
    signed_in.route("**/stop", lambda route: on_its_way.append(route))
    with signed_in.expect_request("**/stop"):
        button(signed_in, "Stop").click()
    button(signed_in, "New conversation").click()
    expect(signed_in.get_by_text("What would you like to know?")).to_be_visible()
    with signed_in.expect_response("**/stop"):
        on_its_way[0].continue_()

    turnstile.set()
    eventually(lambda: not Response.objects.active().exists())
    assert Response.objects.get().status == "stopped"
    ended(signed_in)
