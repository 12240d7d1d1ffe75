"""What the server did not take is not lost: it is back where it can be changed and sent."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from chat.models import Prompt, Response
from tests.chat.handling import answer, ask, asked, button, edit, ended
from tests.cutting_proxy import CuttingProxy
from tests.fakes import ScriptedEngine
from tests.web import eventually

pytest_plugins = ["tests.browser"]

# What a browser says of requests that were not taken.
BROKEN = ("net::ERR_", "status of 404", "status of 429", "status of 502")


@pytest.fixture(autouse=True)
def excused(problems) -> None:
    """These tests are about what a browser complains of."""
    problems.excuse(*BROKEN)


def field(page: Page) -> Locator:
    """Where prompts are written."""
    return page.get_by_label("Your prompt")


def editor(page: Page) -> Locator:
    """Where one is written anew."""
    return page.get_by_label("Edit the prompt")


def waits_for_the_server(page: Page) -> None:
    """It has been asked in vain at least once, and is asked again."""
    expect(page.locator("#status")).to_have_text("Reconnecting …")


def ask_in_vain(page: Page, proxy: CuttingProxy, prompt: str) -> None:
    """Open the page, and ask when the server is away."""
    page.goto(proxy.address)
    expect(page.locator("#model")).to_have_text("scripted-model")
    proxy.fail()
    ask(page, prompt)
    waits_for_the_server(page)


def refused(page: Page) -> None:
    """The reason is said, and another prompt can be sent."""
    expect(page.get_by_role("alert")).to_contain_text("The server takes 0 requests")
    ended(page)


def test_a_refused_edit_is_open_again_as_it_was_written(signed_in, engine, settings):
    signed_in.goto("/")
    for prompt in ("One", "Two"):
        ask(signed_in, prompt)
        ended(signed_in)
    settings.LLMSITE_MAX_REQUESTS = 0
    edit(signed_in, 0, "Rewritten")
    for _ in range(2):  # refused as often as it is tried
        refused(signed_in)
        expect(editor(signed_in)).to_have_value("Rewritten")
        expect(editor(signed_in)).to_be_focused()
        expect(asked(signed_in)).to_have_text(["One", "Two"])
        expect(asked(signed_in).first).to_be_hidden()
        editor(signed_in).press("Enter")
    refused(signed_in)
    button(signed_in, "Cancel").click()
    expect(asked(signed_in).first).to_be_visible()
    expect(button(signed_in, "Edit this prompt").first).to_be_focused()

    edit(signed_in, 0, "Rewritten")
    refused(signed_in)
    settings.LLMSITE_MAX_REQUESTS = 10
    editor(signed_in).press("Enter")
    expect(signed_in.locator(".turn .text")).to_have_text(["Rewritten", "Hello, world"])
    expect(editor(signed_in)).to_have_count(0)
    ended(signed_in)
    assert Prompt.objects.get(content="Rewritten").follows is None


def test_a_refused_edit_leaves_the_keyboard_to_who_writes_below(signed_in, proxy, engine, settings):
    signed_in.goto(proxy.address)
    ask(signed_in, "One")
    ended(signed_in)
    proxy.fail()
    edit(signed_in, 0, "Rewritten")
    waits_for_the_server(signed_in)
    field(signed_in).press_sequentially("Next")

    settings.LLMSITE_MAX_REQUESTS = 0
    proxy.recover()
    refused(signed_in)
    expect(editor(signed_in)).to_have_value("Rewritten")
    expect(field(signed_in)).to_be_focused()
    expect(field(signed_in)).to_have_value("Next")


def test_a_refused_prompt_comes_back_before_what_was_written_meanwhile(
    signed_in, proxy, engine, settings
):
    ask_in_vain(signed_in, proxy, "First")
    field(signed_in).press_sequentially("Second")

    settings.LLMSITE_MAX_REQUESTS = 0
    proxy.recover()
    refused(signed_in)
    expect(field(signed_in)).to_have_value("First\nSecond")
    expect(field(signed_in)).to_be_focused()
    expect(signed_in.locator(".turn")).to_have_count(0)


def test_a_prompt_that_is_left_while_the_server_is_away_goes_along(signed_in, proxy, api, engine):
    api.post("/chat/new/message/", json={"prompt": "Older"})
    signed_in.goto(proxy.address)
    expect(signed_in.locator("#model")).to_have_text("scripted-model")
    older = signed_in.get_by_role("link", name="Older")
    expect(older).to_be_visible()
    proxy.fail()
    ask(signed_in, "Mine")
    waits_for_the_server(signed_in)
    field(signed_in).press_sequentially("And more")

    older.click()
    expect(field(signed_in)).to_have_value("Mine\nAnd more")
    expect(signed_in.get_by_role("alert")).to_contain_text("may not have reached the server")
    proxy.recover()
    expect(asked(signed_in)).to_have_text(["Older"])
    ended(signed_in)
    assert Prompt.objects.get().content == "Older"  # nothing asks by itself
    field(signed_in).press("Enter")
    expect(asked(signed_in)).to_have_text(["Older", "Mine\nAnd more"])
    expect(signed_in.get_by_role("alert")).to_be_hidden()
    ended(signed_in)


def test_an_edit_that_is_left_while_the_server_is_away_goes_along(signed_in, proxy, engine):
    signed_in.goto(proxy.address)
    ask(signed_in, "One")
    ended(signed_in)
    proxy.fail()
    edit(signed_in, 0, "Rewritten")
    waits_for_the_server(signed_in)

    button(signed_in, "New conversation").click()
    expect(field(signed_in)).to_have_value("Rewritten")
    expect(field(signed_in)).to_be_focused()
    proxy.recover()
    signed_in.go_back()
    expect(asked(signed_in)).to_have_text(["One"])
    expect(asked(signed_in)).to_be_visible()
    expect(field(signed_in)).to_have_value("Rewritten")
    ended(signed_in)


def test_a_prompt_outlives_a_reload_while_the_server_is_away(signed_in, proxy, engine):
    ask_in_vain(signed_in, proxy, "Mine")
    field(signed_in).press_sequentially("And more")

    proxy.recover()
    signed_in.reload()
    expect(field(signed_in)).to_have_value("Mine\nAnd more")
    ended(signed_in)


def test_what_was_written_before_a_reload_stands_before_what_is_written_at_once(signed_in, engine):
    signed_in.goto("/")
    field(signed_in).fill("Mine")
    held: list[Route] = []
    signed_in.route("**/page.js", lambda route: held.append(route))
    signed_in.reload(wait_until="commit")
    field(signed_in).fill("And more")  # whatever the browser itself put there
    eventually(lambda: signed_in.evaluate("true") and held)
    held[0].continue_()

    ended(signed_in)
    expect(field(signed_in)).to_have_value("Mine\nAnd more")


def test_an_edit_that_nobody_asked_goes_along(signed_in, engine):
    signed_in.goto("/")
    ask(signed_in, "One")
    ended(signed_in)
    signed_in.reload()
    for written in ("Rewritten", "One"):  # the second is what it was
        button(signed_in, "Edit this prompt").click()
        editor(signed_in).fill(written)
        button(signed_in, "New conversation").click()
        expect(field(signed_in)).to_have_value("Rewritten")
        signed_in.go_back()
    ended(signed_in)


def two_editors(page: Page) -> None:
    """Two turns, both open to be asked anew, the lower one with a new text; the first has another
    version.
    """
    page.goto("/")
    ask(page, "One")
    ended(page)
    button(page, "Answer again").click()
    ended(page)
    ask(page, "Two")
    ended(page)
    button(page, "Edit this prompt").nth(1).click()
    editor(page).fill("Two, and more")
    button(page, "Edit this prompt").nth(0).click()


def test_an_edit_below_one_that_is_asked_is_not_lost(signed_in, engine):
    two_editors(signed_in)
    editor(signed_in).first.fill("Uno")
    editor(signed_in).first.press("Enter")
    ended(signed_in)

    expect(asked(signed_in)).to_have_text(["Uno"])
    expect(field(signed_in)).to_have_value("Two, and more")


def test_an_edit_below_another_version_is_not_lost(signed_in, engine):
    two_editors(signed_in)
    button(signed_in, "Cancel").first.click()
    button(signed_in, "Show the previous version").click()

    expect(signed_in.locator(".versions > span")).to_have_text("1 of 2")
    expect(asked(signed_in)).to_have_text(["One"])
    expect(field(signed_in)).to_have_value("Two, and more")
    ended(signed_in)


def test_an_answer_that_is_left_while_the_server_is_away_is_not_asked_for(signed_in, proxy, engine):
    signed_in.goto(proxy.address)
    ask(signed_in, "One")
    ended(signed_in)
    proxy.fail()
    button(signed_in, "Answer again").click()
    waits_for_the_server(signed_in)

    button(signed_in, "New conversation").click()
    expect(signed_in.get_by_role("alert")).to_contain_text("may not have reached the server")
    expect(field(signed_in)).to_have_value("")
    proxy.recover()
    signed_in.go_back()
    expect(answer(signed_in)).to_have_text("Hello, world")
    ended(signed_in)
    assert Response.objects.count() == 1


def test_what_the_server_took_without_being_heard_is_not_asked_twice(signed_in, proxy, serve):
    engine = serve(ScriptedEngine())
    signed_in.goto(proxy.address)
    expect(signed_in.locator("#model")).to_have_text("scripted-model")
    proxy.deaf = True  # the server hears, and is not heard
    ask(signed_in, "Mine")
    eventually(lambda: len(engine.prompts) == 1)

    button(signed_in, "New conversation").click()
    expect(field(signed_in)).to_have_value("Mine")
    proxy.deaf = False
    proxy.cut()
    field(signed_in).press("Enter")
    expect(signed_in.locator(".turn .text")).to_have_text(["Mine", "Hello, world"])
    ended(signed_in)
    assert len(engine.prompts) == Response.objects.count() == 1


def test_what_the_server_took_stays_there_when_it_is_left(signed_in, engine):
    held = []
    signed_in.goto("/")
    with signed_in.expect_request("**/api/responses/*/"):
        signed_in.route("**/api/responses/*/", lambda route: held.append(route))
        ask(signed_in, "Mine")
    button(signed_in, "New conversation").click()
    expect(signed_in.get_by_text("What would you like to know?")).to_be_visible()
    expect(field(signed_in)).to_have_value("")
    expect(signed_in.get_by_role("alert")).to_be_hidden()
    ended(signed_in)
    assert Prompt.objects.get().content == "Mine"


def test_what_is_written_below_a_missing_conversation_goes_along(signed_in, engine):
    signed_in.goto("/?conversation=nonsense")
    field(signed_in).fill("Mine")
    signed_in.get_by_role("link", name="Start a new conversation").click()
    expect(field(signed_in)).to_be_focused()
    expect(field(signed_in)).to_have_value("Mine")
    signed_in.keyboard.press("Enter")
    expect(signed_in.locator(".turn .text")).to_have_text(["Mine", "Hello, world"])
    ended(signed_in)
