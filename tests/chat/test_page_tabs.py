"""The chat page in many tabs: over HTTP/1.1 a browser has six connections for all of them."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from chat.limits.readers import readers
from chat.models import Prompt, Response
from tests.chat.handling import answer, ask, asked, button, edit, ended
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually

pytest_plugins = ["tests.browser"]

TABS = 7
PIECES = ("One, ", "two, ", "three.")
SECONDS_OF_A_REQUEST = """async () => {
    const before = performance.now();
    const answer = await fetch("/v1/models");
    return answer.ok ? (performance.now() - before) / 1000 : NaN;
}"""


@pytest.fixture
def turnstile(serve) -> Turnstile:
    """Lets the pieces of the answers through."""
    turnstile = Turnstile()
    serve(ScriptedEngine(*PIECES, gate=turnstile))
    return turnstile


def look_at(page: Page, others: list[Page]) -> None:
    """Bring a tab to the front, and hide the others.

    Playwright has all tabs believe that they are looked at, so they are told by hand.
    """
    for one in [page, *others]:
        one.evaluate(SHOWN, one is not page)


SHOWN = """(hidden) => {
    Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_seven_tabs_wait_for_answers_and_the_eighth_is_served_at_once(
    signed_in, context, turnstile
):
    tabs: list[Page] = []
    for _ in range(TABS):
        page = context.new_page()
        page.goto("/")
        look_at(page, tabs)
        tabs.append(page)
        ask(page, "Count")
        expect(button(page, "Stop")).to_be_visible()
    eventually(lambda: readers.total == 1)
    eighth = context.new_page()
    eighth.goto("/")
    assert eighth.evaluate(SECONDS_OF_A_REQUEST) < 1

    turnstile.set()
    eventually(lambda: Response.objects.filter(status="done").count() == TABS)
    for page in tabs:
        look_at(page, [])
        expect(answer(page)).to_have_text("".join(PIECES))
        ended(page)


def test_a_tab_that_is_looked_at_again_goes_on_where_it_was(signed_in, turnstile):
    signed_in.goto("/")
    ask(signed_in, "Count")
    turnstile.admit()
    expect(answer(signed_in)).to_have_text(PIECES[0])

    signed_in.evaluate(SHOWN, True)
    eventually(lambda: readers.total == 0)
    turnstile.admit()
    eventually(lambda: Response.objects.get().text == "".join(PIECES[:2]))
    assert answer(signed_in).inner_text() == PIECES[0]
    with signed_in.expect_request(lambda request: "/events" in request.url) as request:
        signed_in.evaluate(SHOWN, False)
    assert request.value.url.endswith(f"?after={len(PIECES[0])}")
    turnstile.set()
    expect(answer(signed_in)).to_have_text("".join(PIECES))
    ended(signed_in)


def test_a_tab_that_is_looked_at_again_goes_on_behind_what_another_asked(
    signed_in, context, engine
):
    signed_in.goto("/")
    ask(signed_in, "One")
    ended(signed_in)
    other = context.new_page()
    other.goto(signed_in.url)
    expect(answer(other)).to_have_text("Hello, world")
    look_at(other, [signed_in])
    ask(other, "Two")
    ended(other)

    look_at(signed_in, [other])
    expect(asked(signed_in)).to_have_text(["One", "Two"])
    ask(signed_in, "Three")
    expect(asked(signed_in)).to_have_text(["One", "Two", "Three"])
    ended(signed_in)
    assert Prompt.objects.get(content="Three").follows.prompt.content == "Two"
    look_at(other, [signed_in])
    expect(asked(other)).to_have_text(["One", "Two", "Three"])
    ended(other)


def test_a_second_look_is_not_lost_while_the_first_is_on_its_way(signed_in, context, engine):
    signed_in.goto("/")
    ask(signed_in, "One")
    ended(signed_in)
    other = context.new_page()
    other.goto(signed_in.url)
    on_its_way = []
    signed_in.route("**/api/conversations/*/", lambda route: on_its_way.append(route), times=1)
    with signed_in.expect_request("**/api/conversations/*/"):
        look_at(signed_in, [other])
    first_look = on_its_way[0].fetch()  # before the other tab asked
    look_at(other, [signed_in])
    ask(other, "Two")
    ended(other)

    look_at(signed_in, [other])
    on_its_way[0].fulfill(response=first_look)

    expect(asked(signed_in)).to_have_text(["One", "Two"])


def test_what_is_asked_at_the_first_look_waits_for_what_another_asked(signed_in, context, engine):
    signed_in.goto("/")
    ask(signed_in, "One")
    ended(signed_in)
    other = context.new_page()
    other.goto(signed_in.url)
    ask(other, "Two")
    ended(other)

    field = signed_in.get_by_label("Your prompt")
    field.fill("Three")
    signed_in.evaluate(
        "document.dispatchEvent(new Event('visibilitychange'));"
        "document.querySelector('#composer').requestSubmit();"
    )
    expect(asked(signed_in)).to_have_text(["One", "Two", "Three"])
    ended(signed_in)
    assert Prompt.objects.get(content="Three").follows.prompt.content == "Two"


def test_a_tab_that_is_looked_at_again_follows_what_grows_in_another(signed_in, context, turnstile):
    signed_in.goto("/")
    ask(signed_in, "One")
    turnstile.admit(len(PIECES) + 1)
    ended(signed_in)
    other = context.new_page()
    other.goto(signed_in.url)
    look_at(other, [signed_in])
    button(other, "Answer again").click()
    turnstile.admit()
    expect(answer(other)).to_have_text(PIECES[0])

    look_at(signed_in, [other])
    expect(signed_in.locator(".turn .text")).to_have_text(["One", PIECES[0]])
    expect(button(signed_in, "Stop")).to_be_visible()
    turnstile.set()
    expect(answer(signed_in)).to_have_text("".join(PIECES))
    ended(signed_in)


def test_a_conversation_that_could_not_be_read_is_read_at_the_next_look(
    signed_in, engine, problems
):
    problems.excuse("500")
    signed_in.goto("/")
    ask(signed_in, "One")
    ended(signed_in)
    signed_in.route("**/api/conversations/*/", lambda route: route.fulfill(status=500), times=1)
    signed_in.reload()
    expect(signed_in.get_by_role("alert")).to_have_text("The server answered with status 500.")
    expect(button(signed_in, "Send")).to_be_disabled()

    look_at(signed_in, [])
    expect(asked(signed_in)).to_have_text(["One"])
    expect(signed_in.get_by_role("alert")).to_be_hidden()
    ask(signed_in, "Two")
    expect(asked(signed_in)).to_have_text(["One", "Two"])
    ended(signed_in)


def test_the_way_on_from_what_is_missing_keeps_the_keyboard_at_the_next_look(
    signed_in, engine, problems
):
    problems.excuse("404")
    signed_in.goto("/?conversation=00000000000000000000000000000000")
    way = signed_in.get_by_role("link", name="Start a new conversation")
    way.focus()
    with signed_in.expect_event("requestfinished", lambda request: "0000" in request.url):
        look_at(signed_in, [])
    signed_in.evaluate("new Promise((resolve) => setTimeout(resolve))")

    signed_in.keyboard.press("Enter")
    expect(signed_in.get_by_label("Your prompt")).to_be_focused()
    ended(signed_in)


def test_versions_keep_the_keyboard_at_the_next_look(signed_in, context, engine):
    signed_in.goto("/")
    ask(signed_in, "One")
    ended(signed_in)
    button(signed_in, "Answer again").click()
    ended(signed_in)
    other = context.new_page()
    other.goto(signed_in.url)
    look_at(other, [signed_in])
    ask(other, "Two")
    ended(other)

    previous = button(signed_in, "Show the previous version")
    previous.focus()
    look_at(signed_in, [other])
    expect(asked(signed_in)).to_have_text(["One", "Two"])
    expect(previous).to_be_focused()
    ended(signed_in)


def test_what_is_being_edited_stays_at_the_next_look(signed_in, context, engine):
    signed_in.goto("/")
    ask(signed_in, "One")
    ended(signed_in)
    other = context.new_page()
    other.goto(signed_in.url)
    button(signed_in, "Edit this prompt").click()
    editor = signed_in.get_by_label("Edit the prompt")
    editor.fill("Uno")
    look_at(other, [signed_in])
    edit(other, 0, "Eins")
    ended(other)

    with signed_in.expect_event("requestfinished", lambda request: "/api/" in request.url):
        look_at(signed_in, [other])
    expect(signed_in.locator(".versions > span")).to_have_text("1 of 2")
    expect(editor).to_be_focused()
    editor.press("Enter")
    expect(asked(signed_in)).to_have_text(["Uno"])
    expect(signed_in.locator(".versions > span")).to_have_text("3 of 3")
    ended(signed_in)
