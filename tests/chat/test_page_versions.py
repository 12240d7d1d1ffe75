"""Earlier versions of prompts and answers on the chat page: kept, counted, and shown again."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from chat.models import Prompt
from tests.chat.handling import answer, ask, asked, button, edit, ended
from tests.chat.rows import answered
from tests.fakes import ScriptedEngine

pytest_plugins = ["tests.browser"]

PREVIOUS, NEXT = "Show the previous version", "Show the next version"


def said(page: Page) -> Locator:
    """All texts."""
    return page.locator(".turn .text")


def again(page: Page, serve, text: str) -> None:
    """Another answer to the last prompt."""
    serve(ScriptedEngine(text))
    button(page, "Answer again").click()
    expect(answer(page)).to_have_text(text)
    ended(page)


def test_earlier_answers_are_counted_and_shown_by_keyboard(signed_in, serve):
    serve(ScriptedEngine("One"))
    signed_in.goto("/")
    ask(signed_in, "Say it")
    ended(signed_in)
    expect(signed_in.locator(".versions")).to_have_count(0)
    again(signed_in, serve, "Two")
    again(signed_in, serve, "Three")

    for _ in range(2):  # as it happens, and from the record
        expect(signed_in.locator(".turn.assistant .versions span")).to_have_text("3 of 3")
        expect(button(signed_in, NEXT)).to_be_disabled()
        button(signed_in, PREVIOUS).focus()
        for text in ("Two", "One"):
            signed_in.keyboard.press("Enter")
            expect(said(signed_in)).to_have_text(["Say it", text])
        expect(button(signed_in, PREVIOUS)).to_be_disabled()
        expect(button(signed_in, NEXT)).to_be_focused()
        signed_in.keyboard.press("Enter")
        expect(said(signed_in)).to_have_text(["Say it", "Two"])
        expect(button(signed_in, NEXT)).to_be_focused()
        signed_in.reload()
        expect(said(signed_in)).to_have_text(["Say it", "Three"])
        ended(signed_in)


def test_an_earlier_prompt_is_shown_with_what_came_behind_it(signed_in, engine):
    signed_in.goto("/")
    for prompt in ("One", "Two", "Three"):
        ask(signed_in, prompt)
        ended(signed_in)
    edit(signed_in, 1, "Two, but other")
    ended(signed_in)
    expect(signed_in.locator(".versions span")).to_have_text(["2 of 2"])
    signed_in.reload()
    button(signed_in, PREVIOUS).click()
    expect(asked(signed_in)).to_have_text(["One", "Two", "Three"])
    expect(signed_in.locator(".turn.user .versions span")).to_have_text(["1 of 2"])

    ask(signed_in, "Four")
    ended(signed_in)
    expect(asked(signed_in)).to_have_text(["One", "Two", "Three", "Four"])
    assert Prompt.objects.get(content="Four").follows.prompt.content == "Three"
    signed_in.reload()
    expect(asked(signed_in)).to_have_text(["One", "Two", "Three", "Four"])
    ended(signed_in)


def test_a_version_that_was_chosen_stays_until_there_is_something_new(signed_in, api, serve):
    serve(ScriptedEngine("One"))
    signed_in.goto("/")
    ask(signed_in, "Say it")
    ended(signed_in)
    again(signed_in, serve, "Two")
    button(signed_in, PREVIOUS).click()
    expect(answer(signed_in)).to_have_text("One")
    looked = "document.dispatchEvent(new Event('visibilitychange'))"
    with signed_in.expect_response("**/api/conversations/*/"):
        signed_in.evaluate(looked)
    ended(signed_in)
    expect(said(signed_in)).to_have_text(["Say it", "One"])

    conversation = str(Prompt.objects.get().conversation_id)
    api.post("/chat/new/message/", json={"prompt": "More", "conversation": conversation})
    signed_in.evaluate(looked)
    expect(said(signed_in)).to_have_text(["Say it", "Two", "More", "Two"])
    ended(signed_in)


def test_of_versions_that_are_chosen_quickly_the_last_is_shown(signed_in, serve):
    serve(ScriptedEngine())
    signed_in.goto("/")
    for prompt, texts in {"One": ("A", "B"), "Two": ("C", "D")}.items():
        serve(ScriptedEngine(texts[0]))
        ask(signed_in, prompt)
        ended(signed_in)
        again(signed_in, serve, texts[1])
    expect(said(signed_in)).to_have_text(["One", "B", "Two", "D"])

    held = []
    signed_in.route("**/api/conversations/*/?response=*", lambda route: held.append(route), times=1)
    button(signed_in, PREVIOUS).nth(0).click()
    button(signed_in, PREVIOUS).nth(1).click()
    expect(said(signed_in)).to_have_text(["One", "B", "Two", "C"])
    with signed_in.expect_response("**/api/conversations/*/?response=*"):
        held[0].continue_()
    expect(button(signed_in, NEXT).nth(1)).to_be_focused()
    expect(said(signed_in)).to_have_text(["One", "B", "Two", "C"])
    ended(signed_in)


def test_a_version_without_words_is_chosen_and_gone_on_from(signed_in, user, engine):
    called = answered(user, "", tool_calls=[{"name": "look", "arguments": {}}])
    behind = {"conversation": called.prompt.conversation, "follows": called}
    answered(user, "It found nothing.", prompt="", **behind)
    answered(user, "It found one.", prompt="one", **behind)
    Prompt.objects.filter(follows=called).update(role="tool")
    signed_in.goto(f"/?conversation={called.prompt.conversation_id}")
    button(signed_in, "Show the previous version").click()
    expect(answer(signed_in)).to_have_text("It found nothing.")

    ask(signed_in, "Go on")
    expect(answer(signed_in)).to_have_text("Hello, world")
    ended(signed_in)
