"""What the server said a while ago and the page hears only now: it knows better by then."""

from __future__ import annotations

import socket

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from chat.models import Prompt
from tests.chat.handling import Late, ask, asked, button, edit, ended
from tests.fakes import Crowded, Turnstile
from tests.web import eventually

pytest_plugins = ["tests.browser"]

LIST = "**/api/conversations/"
CONVERSATION = f"{LIST}*/"


@pytest.fixture
def page(signed_in: Page, engine) -> Page:
    """A conversation with one answer."""
    signed_in.goto("/")
    ask(signed_in, "One")
    ended(signed_in)
    return signed_in


def look(page: Page) -> None:
    """Come back to the tab."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def listed(page: Page) -> Locator:
    """The titles at the side."""
    return page.locator("#conversations a")


def versions(page: Page) -> list[str]:
    """What stands between the buttons of each turn that has several versions."""
    return page.locator(".versions > span").all_inner_texts()


def test_a_look_that_arrives_late_does_not_take_back_what_was_asked_meanwhile(page):
    late = Late(page, CONVERSATION)
    look(page)
    late.made()
    button(page, "Answer again").click()
    ended(page)
    late.arrive()

    ask(page, "Two")
    ended(page)
    assert versions(page) == ["2 of 2"]
    newest = Prompt.objects.get(content="One").responses.latest("created_at")
    assert Prompt.objects.get(content="Two").follows == newest


def test_a_version_that_arrives_late_does_not_take_back_what_was_asked_meanwhile(page):
    edit(page, 0, "Eins")
    ended(page)
    late = Late(page, f"{CONVERSATION}?response=*")
    button(page, "Show the previous version").click()
    late.made()
    edit(page, 0, "Uno")
    ended(page)
    late.arrive()

    ask(page, "Two")
    ended(page)
    expect(asked(page)).to_have_text(["Uno", "Two"])
    assert versions(page) == ["3 of 3"]


def test_a_version_that_arrives_late_leaves_the_keyboard_to_who_writes_by_then(page):
    button(page, "Answer again").click()
    ended(page)
    late = Late(page, f"{CONVERSATION}?response=*")
    button(page, "Show the previous version").click()
    late.made()
    page.get_by_label("Your prompt").focus()
    late.arrive()

    expect(page.locator(".versions > span")).to_have_text("1 of 2")
    page.keyboard.type("Two")
    expect(page.get_by_label("Your prompt")).to_have_value("Two")


def test_a_list_that_arrives_late_does_not_take_back_what_was_asked_meanwhile(signed_in, engine):
    late = Late(signed_in, LIST)
    signed_in.goto("/")
    late.made()
    ask(signed_in, "One")
    ended(signed_in)
    expect(listed(signed_in)).to_have_text(["One"])
    late.arrive()

    expect(listed(signed_in)).to_have_text(["One"])


def test_the_list_has_what_was_asked_while_it_was_on_its_way(page):
    button(page, "New conversation").click()
    late = Late(page, LIST)
    ask(page, "Two")
    late.made()
    ended(page)
    button(page, "New conversation").click()
    ask(page, "Three")
    ended(page)
    late.arrive()

    expect(listed(page)).to_have_text(["Three", "Two", "One"])


def test_a_new_conversation_that_arrives_late_does_not_take_back_what_is_looked_for(page):
    button(page, "New conversation").click()
    late = Late(page, "**/api/responses/*/")
    ask(page, "Two")
    late.made()
    search = page.get_by_label("Search conversations")
    search.press_sequentially("On")
    late.arrive()
    ended(page)

    search.press_sequentially("e")
    expect(search).to_have_value("One")
    expect(listed(page)).to_have_text(["One"])


def test_a_list_that_arrives_late_does_not_take_back_how_many_are_ahead(page, serve):
    turnstile = Turnstile()
    serve(Crowded(gate=turnstile))
    late = Late(page, LIST)
    button(page, "New conversation").click()
    ask(page, "Two")
    late.made()
    expect(page.locator("#status")).to_have_text("2 ahead of you")
    late.arrive()

    expect(page.locator("#status")).to_have_text("2 ahead of you")
    turnstile.set()
    ended(page)


def test_a_conversation_that_arrives_late_does_not_take_back_what_is_newer(page, context):
    late = Late(page, CONVERSATION)
    page.reload()
    late.made()
    other = context.new_page()
    other.goto(page.url)
    ask(other, "Two")
    ended(other)
    look(page)
    page.evaluate("fetch('/api/conversations/')")  # a look would have its answer before this
    late.arrive()

    ask(page, "Three")
    expect(asked(page)).to_have_text(["One", "Two", "Three"])
    ended(page)


def test_a_look_that_arrives_late_does_not_send_what_is_being_written_by_then(page):
    late = Late(page, CONVERSATION)
    look(page)
    late.made()
    ask(page, "Two")
    page.keyboard.type(" or")
    late.arrive()
    page.keyboard.type(" three")
    page.keyboard.press("Enter")

    expect(asked(page)).to_have_text(["One", "Two or three"])
    ended(page)


def test_what_a_late_look_holds_back_shows_that_it_waits(page):
    late = Late(page, CONVERSATION)
    look(page)
    late.made()
    ask(page, "Two")

    expect(button(page, "Send")).to_have_attribute("aria-busy", "true")
    late.arrive()
    ended(page)
    expect(asked(page)).to_have_text(["One", "Two"])


def test_a_look_that_arrives_late_leaves_the_keyboard_to_who_writes_elsewhere(page):
    late = Late(page, CONVERSATION)
    look(page)
    late.made()
    ask(page, "Two")
    search = page.get_by_label("Search conversations")
    search.fill("On")
    late.arrive()

    expect(asked(page)).to_have_text(["One", "Two"])
    page.keyboard.type("e")
    expect(search).to_have_value("One")
    ended(page)


def test_the_list_has_what_was_asked_and_left_before_it_had_an_answer(page):
    button(page, "New conversation").click()
    late = Late(page, "**/api/responses/*/")
    ask(page, "Two")
    late.made()
    listed(page).get_by_text("One").click()

    expect(listed(page)).to_have_text(["Two", "One"])
    expect(asked(page)).to_have_text(["One"])
    ended(page)


def test_what_the_server_took_is_read_again_and_not_asked_twice(page, problems):
    problems.excuse("500")
    page.route("**/api/responses/*/", lambda route: route.fulfill(status=500), times=1)
    ask(page, "Two")

    expect(page.get_by_role("alert")).to_have_text("The server answered with status 500.")
    expect(asked(page)).to_have_text(["One", "Two"])
    expect(page.get_by_label("Your prompt")).to_have_value("")
    ended(page)
    assert Prompt.objects.filter(content="Two").count() == 1


def test_a_new_conversation_that_the_server_took_is_in_the_list(page, problems):
    problems.excuse("500")
    button(page, "New conversation").click()
    page.route("**/api/responses/*/", lambda route: route.fulfill(status=500), times=1)
    ask(page, "Two")

    expect(listed(page)).to_have_text(["Two", "One"])
    expect(page.get_by_label("Your prompt")).to_have_value("")
    ended(page)


def test_a_proxy_that_takes_its_time_to_refuse_makes_nothing_else_wait(page, problems):
    problems.excuse("503")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}/"
        taken: list[Route] = []

        def take(route: Route) -> None:
            taken.append(route)
            route.continue_(url=address)

        page.route(CONVERSATION, take, times=1)
        page.reload(wait_until="commit")
        eventually(lambda: page.evaluate("true") and taken)
        connection = proxy.accept()[0]
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 503 Gone\r\nContent-Length: 100\r\n\r\n<html>")
            page.evaluate("fetch('/api/conversations/')")  # the head arrives before this
            button(page, "New conversation").click()
            page.evaluate("fetch('/api/conversations/')")
            expect(page.locator("#status")).to_have_text("")
            ended(page)
