"""Long conversations and long answers on the chat page."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.chat.handling import answer, asked, ended
from tests.chat.rows import answered

pytest_plugins = ["tests.browser"]

TURNS = 100
PAGE = re.compile(rb"/Type\s*/Page\b")


def layouts(session: Any) -> float:
    """How often the page was laid out so far."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "LayoutCount")


def open_conversation(page: Page, conversation: Any) -> None:
    page.goto(f"/?conversation={conversation.pk}")
    ended(page)


def test_a_long_conversation_is_not_laid_out_anew_for_each_turn(signed_in, staff, engine):
    row = answered(staff, "Answer 0")
    conversation = row.prompt.conversation
    for at in range(1, TURNS):
        row = answered(staff, f"Answer {at}", conversation=conversation, follows=row)
    signed_in.goto("/")
    ended(signed_in)
    session = signed_in.context.new_cdp_session(signed_in)
    session.send("Performance.enable")
    before = layouts(session)
    open_conversation(signed_in, conversation)

    expect(asked(signed_in)).to_have_count(TURNS)
    expect(answer(signed_in)).to_be_in_viewport()
    assert layouts(session) - before < TURNS


def test_all_of_a_conversation_is_printed(signed_in, staff, engine):
    code = "```\n" + "x" * 400 + "\n```\n"
    row = answered(staff, code + "One line of many.\n" * 200)
    open_conversation(signed_in, row.prompt.conversation)

    assert len(PAGE.findall(signed_in.pdf())) > 3
    signed_in.emulate_media(media="print")
    expect(signed_in.locator("#sidebar")).to_be_hidden()
    expect(signed_in.get_by_label("Your prompt")).to_be_hidden()
    assert signed_in.locator(".code pre").evaluate("(it) => it.scrollWidth <= it.clientWidth")
