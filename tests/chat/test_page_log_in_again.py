"""What the pages of other tabs do after a log-out or another log-in in the same browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.chat.handling import ask, asked, button, edit, ended

pytest_plugins = ["tests.browser"]

PASSWORD = "a long enough secret"
OUTDATED = "This form is out of date"


@pytest.fixture(autouse=True)
def excused(problems) -> None:
    """A browser complains of what it may not do."""
    problems.excuse("status of 401", "status of 403")


def log_in(page: Page, name: str = "ada", password: str = PASSWORD) -> None:
    page.locator("[name=username]").fill(name)
    page.locator("[name=password]").fill(password)
    page.locator("[name=password]").press("Enter")


def log_in_again(page: Page, name: str = "ada", password: str = PASSWORD) -> None:
    """In another tab."""
    button(page, "Log out").click()
    log_in(page, name, password)
    ended(page)


@pytest.fixture
def other_tab(context, page, staff, engine) -> Page:
    """Both tabs show the page."""
    page.goto("/")
    log_in(page)
    ended(page)
    other = context.new_page()
    other.goto("/")
    ended(other)
    return other


def test_what_is_written_outlives_the_log_in_that_the_page_asks_for(page, other_tab):
    button(other_tab, "Log out").click()
    expect(other_tab.locator("[name=password]")).to_be_visible()
    ask(page, "Long and\nthought through")
    expect(page.get_by_role("alert")).to_contain_text("Reload the page to log in again.")

    page.reload()
    log_in(page)
    ended(page)
    expect(page.get_by_label("Your prompt")).to_have_value("Long and\nthought through")
    page.get_by_label("Your prompt").press("Enter")
    expect(asked(page)).to_have_text(["Long and\nthought through"])
    ended(page)
    page.reload()
    ended(page)
    expect(page.get_by_label("Your prompt")).to_have_value("")


def test_what_is_edited_outlives_it_as_well(page, other_tab):
    ask(page, "One")
    ended(page)
    button(other_tab, "Log out").click()
    edit(page, 0, "Rewritten")
    expect(page.get_by_role("alert")).to_contain_text("Reload the page to log in again.")

    page.reload()
    log_in(page)
    ended(page)
    expect(page.get_by_label("Your prompt")).to_have_value("Rewritten")


def test_nobody_else_meets_what_somebody_wrote(page, other_tab, other):
    page.get_by_label("Your prompt").fill("Secret")
    button(page, "Log out").click()
    log_in(page, "bob", "another long secret")
    ended(page)
    expect(page.get_by_label("Your prompt")).to_have_value("")


def test_another_log_in_is_said_and_a_reload_goes_on(page, other_tab):
    log_in_again(other_tab)
    ask(page, "Say it")
    expect(page.get_by_role("alert")).to_contain_text("There was another log-in")
    page.reload()
    ended(page)
    page.get_by_label("Your prompt").press("Enter")
    expect(asked(page)).to_have_text(["Say it"])
    ended(page)


def test_forms_from_before_another_log_in_say_so_and_lead_on(context, page, other_tab):
    log_in_again(other_tab)
    button(page, "Log out").click()
    expect(page.get_by_text(OUTDATED)).to_be_visible()
    page.get_by_role("link", name="Go on").click()
    ended(page)

    button(page, "Log out").click()
    admin = context.new_page()
    admin.goto("/admin/login/")
    other_tab.goto("/login/")
    log_in(page)
    ended(page)
    log_in(other_tab)
    expect(other_tab.get_by_text(OUTDATED)).to_be_visible()
    log_in(admin)
    expect(admin.get_by_text(OUTDATED)).to_be_visible()
    admin.get_by_role("link", name="Back to the beginning").click()
    expect(admin.get_by_role("link", name="Responses").first).to_be_visible()
