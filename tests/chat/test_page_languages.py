"""The chat page in languages that are typed or read otherwise than English."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.chat.handling import ask, asked, button, ended

pytest_plugins = ["tests.browser"]

ARABIC = "مرحبا! هل يبدأ هذا السؤال الطويل من اليمين، ومعه كلمة English في وسطه؟"
KEYS = {"Enter": 13, "Escape": 27}  # with the codes that Windows has for them
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


def compose(page: Page, text: str, key: str = "Enter") -> None:
    """Type with an input method, and press this key before a word was picked."""
    session = page.context.new_cdp_session(page)
    selection = {"selectionStart": len(text), "selectionEnd": len(text)}
    session.send("Input.imeSetComposition", {"text": text, **selection})
    pressed = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
    session.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **pressed})


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


def test_escape_belongs_to_an_input_method_while_it_composes(signed_in, engine):
    signed_in.goto("/")
    ask(signed_in, "One")
    ended(signed_in)
    button(signed_in, "Edit this prompt").click()
    editor = signed_in.get_by_label("Edit the prompt")
    editor.fill("Rewritten: ")
    compose(signed_in, "ni hao", "Escape")
    expect(editor).to_have_value("Rewritten: ni hao")

    editor.blur()  # the composition ends
    editor.press("Escape")
    expect(editor).to_have_count(0)
