"""The chat page, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Route, expect

from chat.models import Conversation, Response
from tests.chat.handling import answer, ask, asked, button, ended
from tests.fakes import ScriptedEngine, Turnstile

pytest_plugins = ["tests.browser"]

HOSTILE = '<img src="https://evil.example/x" onerror="alert(1)"><script>alert(2)</script> & <b>'


def test_whoever_logs_in_can_ask_and_sees_the_answer_grow(page, staff, serve):
    turnstile = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "世界 🌍", gate=turnstile))
    page.goto("/")
    page.locator("[name=username]").fill("ada")
    page.locator("[name=password]").fill("a long enough secret")
    page.locator("[name=password]").press("Enter")
    expect(page.locator("#model")).to_have_text("scripted-model")
    expect(page.get_by_label("Your prompt")).to_be_focused()

    ask(page, "Say it")
    turnstile.admit()
    expect(answer(page)).to_have_text("Hello")
    expect(button(page, "Send")).to_be_hidden()
    turnstile.set()
    expect(answer(page)).to_have_text("Hello, 世界 🌍")
    ended(page)

    row = Response.objects.get()
    assert (row.prompt.content, row.text) == ("Say it", "Hello, 世界 🌍")
    assert (row.surface, row.user) == ("message", staff)
    assert page.url.endswith(f"/?conversation={row.prompt.conversation_id}")
    expect(page.get_by_role("link", name="Say it")).to_have_attribute("aria-current", "page")


def test_what_is_typed_before_the_scripts_are_there_stays(signed_in, engine):
    held: list[Route] = []
    signed_in.route("**/page.js", lambda route: held.append(route))
    signed_in.goto("/", wait_until="commit")
    field = signed_in.get_by_label("Your prompt")
    field.fill("Say it")
    expect(button(signed_in, "Send")).to_be_disabled()
    field.press("Enter")
    expect(field).to_have_value("Say it\n")

    held[0].continue_()
    expect(button(signed_in, "Send")).to_be_enabled()
    field.press("Enter")
    expect(answer(signed_in)).to_have_text("Hello, world")
    ended(signed_in)
    assert Response.objects.get().prompt.content == "Say it\n"


def test_a_second_prompt_goes_on_and_a_reload_shows_all(signed_in, engine):
    signed_in.goto("/")
    ask(signed_in, "First")
    ended(signed_in)
    ask(signed_in, "Second")
    expect(answer(signed_in, 1)).to_have_text("Hello, world")
    ended(signed_in)

    assert engine.prompt_text() == "user: First\nassistant: Hello, world\nuser: Second\n"
    assert Conversation.objects.count() == 1
    signed_in.reload()
    said = ["First", "Hello, world", "Second", "Hello, world"]
    expect(signed_in.locator(".turn .text")).to_have_text(said)
    ended(signed_in)


def test_the_newest_branch_is_shown(signed_in, api, engine):
    first = api.post("/chat/new/message/", json={"prompt": "One"}).json()
    api.post("/chat/new/message/", json={"prompt": "Two", "history": first["history"]})
    api.post("/chat/new/message/", json={"prompt": "Instead", "history": first["history"]})

    signed_in.goto(f"/?conversation={first['conversation']}")

    expect(asked(signed_in)).to_have_text(["One", "Instead"])


def test_text_of_people_and_models_is_never_markup(signed_in, serve):
    serve(ScriptedEngine(HOSTILE[:20], HOSTILE[20:]))
    signed_in.goto("/")
    ask(signed_in, HOSTILE)
    ended(signed_in)

    for _ in range(2):  # as it streams, and from the record
        expect(answer(signed_in)).to_have_text(HOSTILE)
        expect(asked(signed_in)).to_have_text(HOSTILE)
        expect(signed_in.get_by_role("heading", level=1)).to_contain_text("<img")
        assert signed_in.locator("#transcript :is(img, script, b), #sidebar li img").count() == 0
        signed_in.reload()
        ended(signed_in)


def test_the_policy_stops_what_is_not_ours(signed_in, engine, problems):
    response = signed_in.goto("/")

    assert "default-src 'self'" in response.headers["content-security-policy"]
    with pytest.raises(Exception, match="TrustedHTML"):
        signed_in.evaluate("document.body.innerHTML = '<b>x</b>'")
    policy = "Content Security Policy"
    with signed_in.expect_console_message(lambda message: policy in message.text):
        signed_in.evaluate("fetch('https://evil.example/').catch(() => null)")
    problems.excuse(policy, "TrustedHTML")


def test_a_failing_engine_is_a_sentence_below_what_it_said(signed_in, serve):
    serve(ScriptedEngine("Hello", "never", fail_at=1))
    signed_in.goto("/")
    ask(signed_in, "Say it")

    for _ in range(2):  # as it happens, and from the record
        expect(signed_in.locator(".problem")).to_have_text("The engine died.")
        expect(answer(signed_in)).to_have_text("Hello")
        signed_in.reload()
    ended(signed_in)
    ask(signed_in, "Again")
    expect(signed_in.locator(".problem")).to_have_count(2)


def test_a_refused_prompt_comes_back_with_the_reason(signed_in, serve, problems):
    serve(ScriptedEngine(context_length=64))
    signed_in.goto("/")
    prompt = "long " * 30
    ask(signed_in, prompt)

    expect(signed_in.get_by_role("alert")).to_contain_text("63 fit")
    expect(signed_in.get_by_label("Your prompt")).to_have_value(prompt)
    expect(signed_in.locator(".turn")).to_have_count(0)
    assert not Conversation.objects.exists()
    problems.excuse("status of 400")


def test_an_ended_session_is_said(signed_in, context, engine, problems):
    signed_in.goto("/")
    context.clear_cookies()
    ask(signed_in, "Say it")

    expect(signed_in.get_by_role("alert")).to_contain_text("logged out")
    problems.excuse("status of 401")


def test_a_long_prompt_is_asked_like_any_other(signed_in, serve):
    engine = serve(ScriptedEngine("All ", "of it.", context_length=100_000))
    signed_in.goto("/")
    prompt = "世界" * 5_000
    for index in range(2):  # a new conversation, and one that is known
        ask(signed_in, prompt)
        expect(answer(signed_in, index)).to_have_text("All of it.")
        ended(signed_in)

    surfaces = Response.objects.order_by("created_at").values_list("surface", flat=True)
    assert list(surfaces) == ["message", "conversation"]
    assert engine.prompt_text().count(prompt) == 2


def test_enter_sends_and_shift_enter_does_not(signed_in, engine):
    signed_in.goto("/")
    field = signed_in.get_by_label("Your prompt")
    field.fill(" ")
    field.press("Enter")
    expect(signed_in.locator(".turn")).to_have_count(0)
    field.fill("one")
    field.press("Shift+Enter")
    field.type("two")
    field.press("Enter")

    expect(asked(signed_in)).to_have_text("one\ntwo")
    ended(signed_in)
    assert Response.objects.get().prompt.content == "one\ntwo"


def test_whoever_asks_while_reading_far_above_sees_prompt_and_answer(signed_in, serve):
    serve(ScriptedEngine("line\n" * 100))
    signed_in.goto("/")
    ask(signed_in, "One")
    ended(signed_in)
    turnstile = Turnstile()
    serve(ScriptedEngine("Hello", " there", gate=turnstile))
    signed_in.locator("#transcript").evaluate("(box) => (box.scrollTop = 0)")
    ask(signed_in, "Two")
    turnstile.admit()
    expect(answer(signed_in)).to_have_text("Hello")
    expect(asked(signed_in).last).to_be_in_viewport()
    expect(answer(signed_in)).to_be_in_viewport()
    turnstile.set()
    ended(signed_in)
