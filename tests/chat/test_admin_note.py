"""A reviewer's note that was typed and not stored, in a real browser."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from playwright.sync_api import Locator, Page, expect

from chat.models import Response, Verdict
from tests.chat.rows import answered

pytest_plugins = ["tests.browser"]


@pytest.fixture
def row(user) -> Response:
    return answered(user, "It is Paris.")


def why(page: Page) -> Locator:
    return page.get_by_label("Why, if you like")


def judge(page: Page) -> None:
    page.get_by_role("button", name="Judge", exact=True).click()


def type_note(page: Page, row: Response, note: str) -> None:
    page.goto(f"/admin/chat/response/{row.pk}/change/")
    page.get_by_label("Bad").check()
    why(page).fill(note)


def log_in(page: Page, name: str, password: str) -> None:
    page.locator("[name=username]").fill(name)
    page.locator("[name=password]").fill(password)
    page.locator("[name=password]").press("Enter")


def test_who_has_to_log_in_before_judging_finds_the_note_again(signed_in, row):
    type_note(signed_in, row, "Not\na word")
    Session.objects.all().delete()
    judge(signed_in)
    log_in(signed_in, "ada", "a long enough secret")

    expect(why(signed_in)).to_have_value("Not\na word")
    expect(signed_in.get_by_label("Bad")).to_be_checked()
    judge(signed_in)
    expect(signed_in.get_by_text("Your verdict is stored.")).to_be_visible()
    assert Verdict.objects.get().note.splitlines() == ["Not", "a word"]


def test_what_was_stored_meanwhile_stands(signed_in, row, staff):
    type_note(signed_in, row, "typed")
    Verdict.objects.create(response=row, reviewer=staff, value="good", note="in another tab")
    signed_in.reload()
    expect(why(signed_in)).to_have_value("in another tab")

    why(signed_in).fill("typed then")
    signed_in.get_by_role("button", name="Withdraw it").click()
    expect(signed_in.get_by_text("Your verdict is withdrawn.")).to_be_visible()
    expect(why(signed_in)).to_have_value("")
    signed_in.reload()
    expect(why(signed_in)).to_have_value("")


def test_nobody_else_finds_it(signed_in, row):
    get_user_model().objects.create_superuser("eve", password="another long secret")
    type_note(signed_in, row, "typed")
    Session.objects.all().delete()
    judge(signed_in)
    log_in(signed_in, "eve", "another long secret")

    expect(why(signed_in)).to_have_value("")
