"""The chat page in narrow and low windows, where the list of conversations is a menu."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.chat.handling import answer, button, ended

pytest_plugins = ["tests.browser"]


def test_a_narrow_screen_has_a_menu_and_one_can_log_out(signed_in, api, engine):
    api.post("/chat/new/message/", json={"prompt": "Older"})
    signed_in.set_viewport_size({"width": 390, "height": 780})
    signed_in.goto("/")
    link = signed_in.get_by_role("link", name="Older")
    expect(link).to_be_hidden()
    button(signed_in, "Conversations").click()
    link.click()
    expect(link).to_be_hidden()
    expect(answer(signed_in)).to_have_text("Hello, world")

    button(signed_in, "Conversations").click()
    signed_in.get_by_role("button", name="Log out").click()
    signed_in.wait_for_url("**/login/**")
    signed_in.goto("/")
    expect(signed_in.locator("[name=password]")).to_be_visible()


def test_a_low_window_hides_neither_the_list_nor_what_sends(signed_in, api, engine):
    for at in range(9):
        api.post("/chat/new/message/", json={"prompt": f"Older {at}"})
    signed_in.set_viewport_size({"width": 320, "height": 256})  # 1280 by 1024 at 400 %
    signed_in.goto("/")
    ended(signed_in)
    signed_in.get_by_label("Your prompt").fill("line\n" * 9)
    expect(button(signed_in, "Send")).to_be_in_viewport(ratio=1)
    button(signed_in, "Conversations").click()
    for name in ("Older 8", "Older 0"):
        signed_in.get_by_role("link", name=name).scroll_into_view_if_needed()
        expect(signed_in.get_by_role("link", name=name)).to_be_in_viewport(ratio=0.9)
    button(signed_in, "Log out").scroll_into_view_if_needed()
    expect(button(signed_in, "Log out")).to_be_in_viewport(ratio=0.9)


def test_the_keyboard_never_gets_behind_the_open_menu(signed_in, api, engine):
    first = api.post("/chat/new/message/", json={"prompt": "Older"}).json()
    signed_in.set_viewport_size({"width": 640, "height": 400})  # 1280 at 200 %
    signed_in.goto(f"/?conversation={first['conversation']}")
    ended(signed_in)
    button(signed_in, "Conversations").click()
    button(signed_in, "Log out").focus()
    signed_in.keyboard.press("Tab")
    expect(button(signed_in, "Conversations")).to_be_focused()
    signed_in.keyboard.press("Tab")
    behind = "document.activeElement.closest('#transcript, #composer')"
    assert signed_in.evaluate(behind) is None

    signed_in.set_viewport_size({"width": 1280, "height": 800})  # the list is no menu any more
    signed_in.get_by_label("Your prompt").click()
    expect(signed_in.get_by_label("Your prompt")).to_be_focused()
