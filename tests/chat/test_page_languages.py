"""The chat page in languages that are typed or read otherwise than English."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.chat.handling import ask, asked, button, ended

pytest_plugins = ["tests.browser"]

ARABIC = "مرحبا! هل يبدأ هذا السؤال الطويل من اليمين، ومعه كلمة English في وسطه؟"
# Whether the first letters of a text are within its box.
BEGINNING_IS_SHOWN = """(it) => {
    const range = document.createRange();
    range.setStart(it.firstChild, 0);
    range.setEnd(it.firstChild, 5);
    const [word, box] = [range.getBoundingClientRect(), it.getBoundingClientRect()];
    return word.left >= box.left && word.right <= box.right;
}"""


def press_enter_as_safari_does_after_composing(field: Locator) -> None:
    """The composition has ended, and the key still belongs to the input method."""
    field.evaluate(
        """(it) => it.dispatchEvent(new KeyboardEvent("keydown",
            { key: "Enter", keyCode: 229, bubbles: true, cancelable: true }))"""
    )


def compose(page: Page, text: str) -> None:
    """Type with an input method, and press Enter before a word was picked."""
    session = page.context.new_cdp_session(page)
    selection = {"selectionStart": len(text), "selectionEnd": len(text)}
    session.send("Input.imeSetComposition", {"text": text, **selection})
    key = {"type": "rawKeyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
    session.send("Input.dispatchKeyEvent", key)


def test_what_is_written_from_right_to_left_is_shown_so_everywhere(signed_in, engine):
    signed_in.goto("/")
    field = signed_in.get_by_label("Your prompt")
    field.fill(ARABIC)
    expect(field).to_have_css("direction", "rtl")
    field.press("Enter")
    ended(signed_in)

    title = signed_in.get_by_role("heading", level=1)
    listed = signed_in.locator("#conversations a")
    for place in (title, listed):
        expect(place).to_contain_text("مرحبا")
        assert place.evaluate(BEGINNING_IS_SHOWN)
    button(signed_in, "Edit this prompt").click()
    expect(signed_in.get_by_label("Edit the prompt")).to_have_css("direction", "rtl")


def test_enter_belongs_to_an_input_method_while_it_composes(signed_in, engine):
    signed_in.goto("/")
    field = signed_in.get_by_label("Your prompt")
    field.focus()
    compose(signed_in, "ni hao")
    press_enter_as_safari_does_after_composing(field)
    expect(signed_in.locator(".turn")).to_have_count(0)

    ask(signed_in, "你好")
    ended(signed_in)
    expect(asked(signed_in)).to_have_text(["你好"])
