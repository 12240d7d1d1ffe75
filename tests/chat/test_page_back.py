"""The chat page after Back, in a browser that keeps pages as they were left."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.chat.handling import ask, asked, button, ended

pytest_plugins = ["tests.browser"]


@pytest.fixture(scope="module")
def launching() -> dict[str, Any]:
    return {"ignore_default_args": ["--disable-back-forward-cache"]}


def go_back(page: Page) -> None:
    """Playwright would wait until a page is loaded that is there."""
    page.evaluate("setTimeout(() => history.back())")


def test_what_was_written_is_there_after_back(signed_in, engine):
    signed_in.goto("/")
    ask(signed_in, "One")
    ended(signed_in)
    field = signed_in.get_by_label("Your prompt")
    field.fill("Mine")
    signed_in.get_by_role("link", name="ada").click()
    expect(signed_in.get_by_label("Old password")).to_be_visible()
    go_back(signed_in)

    expect(asked(signed_in)).to_have_text(["One"])
    expect(field).to_have_value("Mine")
    ended(signed_in)


def test_whoever_goes_back_after_a_log_out_meets_nothing(signed_in, engine, problems):
    problems.excuse("status of 401")
    signed_in.goto("/")
    ask(signed_in, "Secret")
    ended(signed_in)
    button(signed_in, "Log out").click()
    password = signed_in.locator("[name=password]")
    expect(password).to_be_visible()
    with signed_in.expect_event("framenavigated"):
        go_back(signed_in)

    expect(password).to_be_visible()
    expect(signed_in.get_by_text("Secret")).to_have_count(0)
