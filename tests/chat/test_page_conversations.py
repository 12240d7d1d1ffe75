"""The list of conversations beside the page's open one; on narrow screens a menu."""

from __future__ import annotations

import httpx
from django.contrib.auth import get_user_model
from playwright.sync_api import Page, Route, expect

from chat.models import Conversation
from tests.chat.handling import answer, ask, asked, button, ended
from tests.fakes import ScriptedEngine, Turnstile

pytest_plugins = ["tests.browser"]
NO_PAGE = {"results": [], "next": None}  # as when fifty newer ones are before it


def test_conversations_are_opened_left_and_found_again(signed_in, api, engine):
    api.post("/chat/new/message/", json={"prompt": "Older"})
    signed_in.goto("/")
    ask(signed_in, "Newer")
    ended(signed_in)

    signed_in.get_by_role("link", name="Older").click()
    expect(asked(signed_in)).to_have_text("Older")
    expect(signed_in.get_by_role("heading", name="Older")).to_be_visible()
    signed_in.go_back()
    expect(asked(signed_in)).to_have_text("Newer")
    signed_in.get_by_role("button", name="New conversation").click()
    expect(signed_in.locator(".turn")).to_have_count(0)
    expect(signed_in.get_by_text("What would you like to know?")).to_be_visible()


def test_a_conversation_left_while_it_is_answered_goes_on(signed_in, serve):
    turnstile = Turnstile()
    engine = serve(ScriptedEngine("Hello", ", ", "world", gate=turnstile))
    signed_in.goto("/")
    ask(signed_in, "Say it")
    turnstile.admit()
    expect(answer(signed_in)).to_have_text("Hello")
    expect(signed_in.get_by_role("link", name="Say it")).to_be_visible()

    signed_in.get_by_role("button", name="New conversation").click()
    turnstile.admit()
    signed_in.get_by_role("link", name="Say it").click()
    expect(answer(signed_in)).to_have_text("Hello, ")
    turnstile.set()
    expect(answer(signed_in)).to_have_text("Hello, world")
    ended(signed_in)
    assert len(engine.prompts) == 1


def test_what_is_asked_before_the_conversation_is_there_waits_for_it(signed_in, api, engine):
    first = api.post("/chat/new/message/", json={"prompt": "Older"}).json()
    held = []
    signed_in.route(
        f"**/api/conversations/{first['conversation']}/", lambda route: held.append(route)
    )
    with signed_in.expect_request(f"**/api/conversations/{first['conversation']}/"):
        signed_in.goto(f"/?conversation={first['conversation']}")
    ask(signed_in, "Newer")
    expect(signed_in.get_by_label("Your prompt")).to_have_value("Newer")
    held[0].continue_()
    expect(asked(signed_in)).to_have_text(["Older", "Newer"])
    expect(signed_in.get_by_label("Your prompt")).to_have_value("")
    ended(signed_in)
    assert engine.prompt_text() == "user: Older\nassistant: Hello, world\nuser: Newer\n"


def test_a_conversation_that_is_not_in_the_list_has_its_title(signed_in, api, engine):
    first = api.post("/chat/new/message/", json={"prompt": "Older"}).json()
    api.patch(f"/api/conversations/{first['conversation']}/", json={"title": "<b>Rivers</b>"})
    signed_in.route("**/api/conversations/", lambda route: route.fulfill(json=NO_PAGE))
    signed_in.goto(f"/?conversation={first['conversation']}")
    expect(signed_in.get_by_role("heading", level=1)).to_have_text("<b>Rivers</b>")
    expect(signed_in).to_have_title("<b>Rivers</b> · llmsite")
    ended(signed_in)


def test_a_list_that_is_read_again_leaves_the_keyboard_where_it_is(signed_in, api, engine):
    api.post("/chat/new/message/", json={"prompt": "Older"})
    signed_in.goto("/")
    older = signed_in.get_by_role("link", name="Older")
    expect(older).to_be_visible()
    held = []
    with signed_in.expect_request("**/api/conversations/"):
        signed_in.route("**/api/conversations/", lambda route: held.append(route))
        ask(signed_in, "Newer")
    older.focus()
    held[0].continue_()
    expect(signed_in.get_by_role("link", name="Newer")).to_be_visible()
    expect(older).to_be_focused()
    ended(signed_in)


def test_older_conversations_are_listed_once_however_often_one_presses(signed_in, engine):
    def page(route):
        last = "cursor=" in route.request.url
        row = {"id": "b" if last else "a", "title": "Last" if last else "First", "created_at": 0}
        following = None if last else "http://server/api/conversations/?cursor=b"
        route.fulfill(json={"results": [row], "next": following})

    signed_in.route("**/api/conversations/**", page)
    signed_in.goto("/")
    button(signed_in, "Show older").dblclick()
    expect(button(signed_in, "Show older")).to_be_hidden()
    signed_in.wait_for_load_state("networkidle")

    expect(signed_in.locator("#conversations a")).to_have_text(["First", "Last"])


def test_conversations_are_found_by_what_was_said_in_them(signed_in, api, engine):
    for prompt in ("Of France?", "Of Italy?", "Of Spain?"):
        api.post("/chat/new/message/", json={"prompt": prompt})
    links = signed_in.locator("#conversations a")
    field = signed_in.get_by_label("Search conversations")
    signed_in.goto("/")
    signed_in.get_by_role("link", name="Of Spain?").click()
    field.press_sequentially("world ital")
    expect(links).to_have_text(["Of Italy?"])
    expect(signed_in.get_by_role("heading", level=1)).to_have_text("Of Spain?")
    links.click()
    expect(asked(signed_in)).to_have_text("Of Italy?")

    field.fill("Of Norway?")
    expect(signed_in.get_by_text("No conversation has all of these words.")).to_be_visible()
    expect(links).to_have_count(0)
    field.fill("")
    expect(links).to_have_text(["Of Spain?", "Of Italy?", "Of France?"])

    field.fill("France")
    expect(links).to_have_text(["Of France?"])
    button(signed_in, "New conversation").click()
    ask(signed_in, "Of Sweden?")
    ended(signed_in)
    expect(links.first).to_have_text("Of Sweden?")  # what is new is seen
    expect(field).to_have_value("")


def first_search_held(page: Page, api: httpx.Client) -> list[Route]:
    """The searches that are made: for one of two conversations, held, while another is typed."""
    for prompt in ("Of France?", "Of Italy?"):
        api.post("/chat/new/message/", json={"prompt": prompt})
    made: list[Route] = []

    def note(route: Route) -> None:
        made.append(route)
        if len(made) > 1:
            route.continue_()

    page.route("**/conversations/*search=*", note)
    page.clock.install()
    page.goto("/")
    field = page.get_by_label("Search conversations")
    with page.expect_request("**/api/conversations/?search=France"):
        field.fill("France")
    for words in ("It", "Italy"):
        field.fill(words)
        page.clock.run_for(1000)  # until it is looked for
    return made


def test_one_search_is_made_at_a_time_and_then_the_one_that_was_typed_last(signed_in, api, engine):
    made = first_search_held(signed_in, api)
    assert len(made) == 1
    made[0].continue_()

    expect(signed_in.locator("#conversations a")).to_have_text(["Of Italy?"])
    assert len(made) == 2


def test_a_search_that_fails_keeps_nobody_from_the_next(signed_in, api, engine, problems):
    problems.excuse("429")
    made = first_search_held(signed_in, api)
    made[0].fulfill(status=429, json={"detail": "Too many."})

    expect(signed_in.locator("#conversations a")).to_have_text(["Of Italy?"])


def test_the_menu_of_a_narrow_screen_is_used_by_keyboard(signed_in, api, engine):
    api.post("/chat/new/message/", json={"prompt": "Older"})
    signed_in.set_viewport_size({"width": 390, "height": 780})
    signed_in.goto("/")
    link = signed_in.get_by_role("link", name="Older")
    menu = button(signed_in, "Conversations")
    menu.press("Enter")
    expect(button(signed_in, "New conversation")).to_be_focused()
    expect(link).to_be_visible()  # the list has been loaded
    signed_in.keyboard.press("Tab")
    expect(signed_in.get_by_label("Search conversations")).to_be_focused()
    signed_in.keyboard.press("Tab")
    expect(link).to_be_focused()
    signed_in.keyboard.press("Escape")
    expect(link).to_be_hidden()
    expect(menu).to_be_focused()
    expect(menu).to_have_attribute("aria-expanded", "false")

    menu.press("Enter")
    link.press("Enter")
    expect(asked(signed_in)).to_have_text("Older")
    expect(menu).to_be_focused()
    ended(signed_in)


def test_the_list_waits_for_a_server_that_is_away(signed_in, engine, problems):
    problems.excuse("ERR_FAILED")
    Conversation.objects.create(user=get_user_model().objects.get(), title="Capitals")
    signed_in.route("**/api/conversations/", lambda route: route.abort(), times=1)
    signed_in.goto("/")

    expect(signed_in.get_by_role("link", name="Capitals")).to_be_visible()
    expect(signed_in.get_by_role("alert")).to_be_hidden()
    expect(signed_in.locator("#status")).to_have_text("")
