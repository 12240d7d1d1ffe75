"""What the chat page can do with an answer: have another one, ask anew, wait."""

from __future__ import annotations

from playwright.sync_api import expect

from chat.models import Prompt, Response
from tests.chat.handling import answer, ask, asked, button, edit, ended
from tests.chat.rows import answered
from tests.fakes import Crowded, ScriptedEngine, Turnstile

pytest_plugins = ["tests.browser"]


def test_again_is_one_more_answer_to_the_same_prompt(signed_in, serve):
    serve(ScriptedEngine("First"))
    signed_in.goto("/")
    ask(signed_in, "Say it")
    ended(signed_in)
    turnstile = Turnstile()
    engine = serve(ScriptedEngine("Second", ".", gate=turnstile))
    button(signed_in, "Answer again").click()
    turnstile.admit(1)
    expect(signed_in.locator(".turn.assistant .text")).to_have_text(["Second"])
    signed_in.reload()  # in the middle of it
    turnstile.set()
    expect(signed_in.locator(".turn .text")).to_have_text(["Say it", "Second."])
    ended(signed_in)

    assert len(engine.prompts) == 1
    first, second = Prompt.objects.get().responses.order_by("created_at")
    assert (first.text, second.text) == ("First", "Second.")
    ask(signed_in, "Go on")
    ended(signed_in)
    assert Prompt.objects.get(content="Go on").follows == second
    expect(button(signed_in, "Answer again")).to_have_count(1)


def test_again_works_on_what_failed(signed_in, serve):
    serve(ScriptedEngine(fail_at=0))
    signed_in.goto("/")
    ask(signed_in, "Say it")
    expect(signed_in.locator(".problem")).to_have_text("The engine died.")
    serve(ScriptedEngine())
    button(signed_in, "Answer again").click()
    expect(answer(signed_in)).to_have_text("Hello, world")
    expect(signed_in.locator(".problem")).to_have_count(0)


def test_an_answer_without_a_word_is_called_empty(signed_in, serve):
    serve(ScriptedEngine(" "))
    signed_in.goto("/")
    ask(signed_in, "Say nothing")
    for _ in range(2):  # as it comes, and from the record
        expect(signed_in.locator(".remark")).to_have_text("The answer is empty.")
        ended(signed_in)
        signed_in.reload()


def test_a_refused_again_leaves_the_answer(signed_in, serve, problems, settings):
    serve(ScriptedEngine())
    signed_in.goto("/")
    ask(signed_in, "Say it")
    ended(signed_in)
    settings.LLMSITE_MAX_REQUESTS = 0
    for name in ("Answer again", "Edit this prompt"):
        button(signed_in, name).click()
        if "Edit" in name:
            signed_in.get_by_label("Edit the prompt").press("Enter")
        expect(signed_in.get_by_role("alert")).to_contain_text("The server takes 0 requests")
        expect(signed_in.locator(".turn .text")).to_have_text(["Say it", "Hello, world"])
        ended(signed_in)
    settings.LLMSITE_MAX_REQUESTS = 10
    button(signed_in, "Answer again").click()
    expect(signed_in.get_by_role("alert")).to_be_hidden()
    ended(signed_in)
    assert Response.objects.count() == 2
    problems.excuse("status of 429")


def test_an_edited_prompt_is_a_sibling(signed_in, engine):
    signed_in.goto("/")
    for prompt in ("One", "Two", "Three"):
        ask(signed_in, prompt)
        ended(signed_in)

    edit(signed_in, 1, "Two, but other")
    expect(asked(signed_in)).to_have_text(["One", "Two, but other"])
    ended(signed_in)
    assert engine.prompt_text() == "user: One\nassistant: Hello, world\nuser: Two, but other\n"
    signed_in.reload()
    expect(asked(signed_in)).to_have_text(["One", "Two, but other"])
    ended(signed_in)
    edit(signed_in, 0, "Other")
    expect(signed_in.locator(".turn .text")).to_have_text(["Other", "Hello, world"])
    ended(signed_in)

    two, other_two = Prompt.objects.filter(content__startswith="Two")
    assert two.follows == other_two.follows != None  # noqa: E711
    assert Prompt.objects.get(content="Other").follows is None
    assert Prompt.objects.count() == Response.objects.count() == 5


def test_an_edit_can_be_left(signed_in, engine):
    signed_in.goto("/")
    ask(signed_in, "One")
    ended(signed_in)
    for leave in (
        lambda: signed_in.get_by_label("Edit the prompt").press("Escape"),
        lambda: button(signed_in, "Cancel").click(),
    ):
        button(signed_in, "Edit this prompt").click()
        signed_in.get_by_label("Edit the prompt").fill("Changed")
        expect(asked(signed_in)).to_be_hidden()
        leave()
        expect(asked(signed_in)).to_have_text("One")
        expect(asked(signed_in)).to_be_visible()
        expect(button(signed_in, "Edit this prompt")).to_be_focused()
    assert len(engine.prompts) == 1


def test_whoever_waits_sees_how_many_are_ahead(signed_in, serve):
    turnstile = Turnstile()
    engine = serve(Crowded(gate=turnstile))
    signed_in.goto("/")
    ask(signed_in, "Say it")
    status = signed_in.locator("#status")
    expect(status).to_have_text("2 ahead of you")
    engine.ahead = 1
    expect(status).to_have_text("1 ahead of you")
    signed_in.reload()
    expect(status).to_have_text("1 ahead of you")
    turnstile.set()
    expect(answer(signed_in)).to_have_text("Hello, world")
    expect(status).to_have_text("")


def test_what_the_model_did_not_see_is_said(signed_in, serve):
    engine = serve(ScriptedEngine("word " * 8, context_length=100))
    signed_in.goto("/")
    for prompt in ("First " * 4, "Second " * 4):
        ask(signed_in, prompt)
        ended(signed_in)
    assert "First" not in engine.prompt_text()
    for _ in range(2):  # as it happens, and from the record
        expect(signed_in.locator(".turn").last).to_contain_text("was not seen by the model")
        assert signed_in.get_by_text("was not seen by the model").count() == 1
        signed_in.reload()
        ended(signed_in)


def test_an_answer_that_was_cut_off_says_so(signed_in, serve):
    serve(ScriptedEngine("word " * 40, context_length=100))
    signed_in.goto("/")
    ask(signed_in, "Say it")
    for _ in range(2):
        expect(signed_in.locator(".remark")).to_have_text(
            "The answer was cut off at the token limit."
        )
        signed_in.reload()
        ended(signed_in)


def test_a_conversation_that_is_not_there_is_said_and_left(signed_in, engine, problems, other):
    theirs = answered(other, "Theirs").prompt.conversation_id
    for address in (theirs, "00000000-0000-4000-8000-000000000000", "nonsense", ".."):
        signed_in.goto(f"/?conversation={address}")
        expect(signed_in.get_by_role("alert")).to_have_text(
            "This conversation does not exist, or is not yours."
        )
        signed_in.get_by_role("link", name="Start a new conversation").click()
        ask(signed_in, "Say it")
        ended(signed_in)
        expect(signed_in.locator(".turn .text")).to_have_text(["Say it", "Hello, world"])
    problems.excuse("status of 404")
