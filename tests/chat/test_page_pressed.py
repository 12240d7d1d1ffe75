"""What somebody is just pressing: a click is lost where the page makes the pressed thing anew."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.chat.handling import Late, ask, asked, button, ended

pytest_plugins = ["tests.browser"]

CONVERSATION = "**/api/conversations/*/"


@pytest.fixture
def page(signed_in: Page, engine) -> Page:
    """A conversation with one answer."""
    signed_in.goto("/")
    ask(signed_in, "One")
    ended(signed_in)
    return signed_in


def press(page: Page, what: Locator) -> None:
    """Press the mouse's button on it; `page.mouse.up()` makes it a click."""
    what.hover()
    page.mouse.down()


def test_a_conversation_that_is_being_pressed_opens_though_the_list_arrives(page):
    button(page, "New conversation").click()
    late = Late(page, "**/api/conversations/?search=*")
    page.get_by_label("Search conversations").fill("On")
    late.made()
    press(page, page.get_by_role("link", name="One"))
    late.arrive()
    page.mouse.up()

    expect(asked(page)).to_have_text(["One"])
    ended(page)


def test_a_version_that_is_being_pressed_is_shown_though_another_tab_has_gone_on(page, context):
    button(page, "Answer again").click()
    ended(page)
    other = context.new_page()
    other.goto(page.url)
    ask(other, "Two")
    ended(other)
    late = Late(page, CONVERSATION)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    late.made()
    press(page, button(page, "Show the previous version"))
    late.arrive()
    expect(asked(page)).to_have_text(["One", "Two"])
    page.mouse.up()

    expect(asked(page)).to_have_text(["One"])
    expect(page.locator(".versions > span")).to_have_text("1 of 2")
    ended(page)


def test_the_list_keeps_its_order_whatever_comes_and_goes(page):
    listed = page.locator("#conversations a")
    for prompt in ("Two", "Three"):
        button(page, "New conversation").click()
        ask(page, prompt)
        ended(page)
    expect(listed).to_have_text(["Three", "Two", "One"])
    search = page.get_by_label("Search conversations")
    search.fill("Two")
    expect(listed).to_have_text(["Two"])
    search.fill("T")
    expect(listed).to_have_text(["Three", "Two"])
    search.fill("")
    expect(listed).to_have_text(["Three", "Two", "One"])
    ended(page)
