"""The login page, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.chat.handling import ended

pytest_plugins = ["tests.browser"]

# Of a text on the page's own background, as WCAG 2 has it.
CONTRAST = """(text) => {
    const luminance = (colour) => {
        const [red, green, blue] = colour.match(/\\d+/g).map((byte) => {
            const share = byte / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const paper = document.body.appendChild(document.createElement("i"));
    paper.style.background = "Canvas";
    const both = [getComputedStyle(text).color, getComputedStyle(paper).backgroundColor];
    const [dark, light] = both.map(luminance).sort((one, two) => one - two);
    return (light + 0.05) / (dark + 0.05);
}"""


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
