"""The login page, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.chat.contrast import CONTRAST
from tests.chat.handling import ended

pytest_plugins = ["tests.browser"]


def log_in(page: Page, password: str) -> None:
    page.locator("[name=password]").fill(password)
    page.locator("[name=password]").press("Enter")


def test_a_wrong_password_leaves_the_name(page, staff, engine):
    page.goto("/")
    expect(page.locator("[name=username]")).to_be_focused()
    page.locator("[name=username]").fill("ada")
    log_in(page, "wrong")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.locator("[name=username]")).to_have_value("ada")
    expect(page.locator("[name=password]")).to_be_focused()
    log_in(page, "a long enough secret")
    ended(page)


def test_a_name_is_never_markup(page, staff, engine):
    page.goto("/")
    page.locator("[name=username]").fill('"><img src=x>')
    log_in(page, "wrong")
    expect(page.locator("[name=username]")).to_have_value('"><img src=x>')


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_went_wrong_can_be_read(page, staff, engine, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto("/")
    page.locator("[name=username]").fill("ada")
    log_in(page, "wrong")
    assert page.get_by_role("alert").evaluate(CONTRAST) >= 4.5
