"""Where the chat page is scrolled to while things around the reader change."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from tests.chat.handling import answer, ask, button, ended
from tests.chat.rows import answered
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually

pytest_plugins = ["tests.browser"]

LOOK = "document.dispatchEvent(new Event('visibilitychange'))"


def measure(page: Page, what: str) -> Any:
    return page.locator("#transcript").evaluate(f"(box) => {what}")


def is_at_end(page: Page) -> bool:
    return measure(page, "box.scrollHeight - box.scrollTop - box.clientHeight < 2")


def test_whoever_writes_on_still_sees_the_answer_grow(signed_in, serve):
    turnstile = Turnstile()
    serve(ScriptedEngine("line\n" * 60, "last\n" * 5, gate=turnstile))
    signed_in.goto("/")
    ask(signed_in, "One")
    turnstile.admit()
    expect(answer(signed_in)).to_contain_text("line")
    assert is_at_end(signed_in)

    signed_in.get_by_label("Your prompt").fill("line\n" * 7)
    eventually(lambda: is_at_end(signed_in))
    turnstile.set()
    ended(signed_in)
    assert is_at_end(signed_in)


def test_whoever_reads_above_stays_there_while_the_field_grows(signed_in, user, engine):
    row = answered(user, "line\n" * 100)
    signed_in.goto(f"/?conversation={row.prompt.conversation_id}")
    ended(signed_in)
    measure(signed_in, "(box.scrollTop = 900)")
    signed_in.get_by_label("Your prompt").fill("line\n" * 7)
    signed_in.get_by_label("Your prompt").fill("")
    assert measure(signed_in, "box.scrollTop") == 900


def test_whoever_reads_a_prompt_stays_there_when_another_tab_has_its_answer(
    signed_in, context, user, serve
):
    serve(ScriptedEngine("line\n" * 100))
    row = answered(user, "line\n" * 100)
    answered(user, "line\n" * 100, conversation=row.prompt.conversation, follows=row)
    signed_in.goto(f"/?conversation={row.prompt.conversation_id}")
    ended(signed_in)
    other = context.new_page()
    other.goto(signed_in.url)
    ended(other)
    middle = "(turn) => turn.scrollIntoView({ block: 'center' })"
    signed_in.locator(".turn.user").last.evaluate(middle)
    top = measure(signed_in, "box.scrollTop")
    button(other, "Answer again").click()
    ended(other)

    signed_in.evaluate(LOOK)
    expect(signed_in.locator(".versions > span")).to_have_text("2 of 2")
    assert measure(signed_in, "box.scrollTop") == top
