"""The chat page while connections break and servers restart: one answer, exactly once."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from chat.lifecycle.supervisor import supervisor
from chat.models import Response
from tests.chat.handling import answer, ask, asked, button, ended
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually

pytest_plugins = ["tests.browser"]

PIECES = ("One, ", "zwei, ", "三, ", "🌍👩‍👩‍👧‍👦, ", "five.")
WHOLE = "".join(PIECES)
BROKEN = ("net::ERR_", "status of 502")  # what a browser says of a connection that broke


# What docs/api.md shows; the page itself does not use EventSource on /sendMessage.
DOCUMENTED = """() => {
  const prompt = "Count";
  const idempotency_key = [...crypto.getRandomValues(new Uint32Array(4))].join("-");
  const source = new EventSource("/sendMessage?" + new URLSearchParams({prompt, idempotency_key}));
  window.shown = "";
  source.onmessage = (event) => (window.shown += JSON.parse(event.data).text);
  source.addEventListener("done", () => { source.close(); window.over = 1; });
}"""


def one_generation(engine: ScriptedEngine) -> Response:
    """The only row there is, made by the only run of the model."""
    assert len(engine.prompts) == 1
    return Response.objects.get()


def test_a_reload_in_the_middle_shows_the_whole_once(signed_in, serve):
    turnstile = Turnstile()
    engine = serve(ScriptedEngine(*PIECES, gate=turnstile))
    signed_in.goto("/")
    ask(signed_in, "Count")
    turnstile.admit(4)
    expect(answer(signed_in)).to_have_text("".join(PIECES[:4]))
    eventually(lambda: len(Response.objects.get().text) == len("".join(PIECES[:4])))

    with signed_in.expect_request(re.compile("/events")) as request:
        signed_in.reload()
    # By Unicode characters: UTF-16 would count the family and the globe as 13 instead of 8.
    assert request.value.url.endswith(f"?after={len(''.join(PIECES[:4]))}")
    expect(answer(signed_in)).to_have_text("".join(PIECES[:4]))
    expect(button(signed_in, "Stop")).to_be_visible()
    turnstile.set()
    expect(answer(signed_in)).to_have_text(WHOLE)
    ended(signed_in)

    expect(asked(signed_in)).to_have_text(["Count"])
    assert answer(signed_in).inner_text() == one_generation(engine).text == WHOLE


def test_ten_rapid_reloads_start_nothing(signed_in, serve):
    turnstile = Turnstile()
    engine = serve(ScriptedEngine(*PIECES, gate=turnstile))
    signed_in.goto("/")
    ask(signed_in, "Count")
    turnstile.admit(1)
    expect(answer(signed_in)).to_have_text(PIECES[0])
    for count in range(10):
        signed_in.reload(wait_until="domcontentloaded" if count % 2 else "load")
        if count in (3, 6):
            turnstile.admit(1)
    turnstile.set()

    expect(answer(signed_in)).to_have_text(WHOLE)
    ended(signed_in)
    expect(signed_in.locator(".turn")).to_have_count(2)
    assert one_generation(engine).text == WHOLE


def test_a_copied_link_shows_the_same_answer_grow(signed_in, context, serve):
    turnstile = Turnstile()
    engine = serve(ScriptedEngine(*PIECES, gate=turnstile))
    signed_in.goto("/")
    ask(signed_in, "Count")
    turnstile.admit(2)
    expect(answer(signed_in)).to_have_text("".join(PIECES[:2]))

    other = context.new_page()
    other.goto(signed_in.url)
    expect(answer(other)).to_have_text("".join(PIECES[:2]))
    turnstile.set()
    for page in (signed_in, other):
        expect(answer(page)).to_have_text(WHOLE)
        ended(page)
    one_generation(engine)


def test_a_cut_connection_goes_on_where_it_was(signed_in, proxy, serve, problems):
    turnstile = Turnstile()
    engine = serve(ScriptedEngine(*PIECES, gate=turnstile))
    signed_in.goto(proxy.address)
    with signed_in.expect_response(re.compile("/events")):
        ask(signed_in, "Count")
    turnstile.admit(4)
    expect(answer(signed_in)).to_have_text("".join(PIECES[:4]))

    proxy.cut()
    expect(signed_in.locator("#status")).to_have_text("Reconnecting …")
    expect(signed_in.locator("#status")).to_have_text("")
    turnstile.set()
    expect(answer(signed_in)).to_have_text(WHOLE)
    ended(signed_in)

    first, second = proxy.requests("/events")
    assert "last-event-id" not in first.lower()
    cursor = len("".join(PIECES[:4]))
    assert re.search(rf"last-event-id: [0-9a-f]{{32}}:{cursor}\b", second.lower())
    assert one_generation(engine).text == WHOLE
    problems.excuse(*BROKEN)


def test_a_cut_before_the_first_word_does_not_ask_again(signed_in, proxy, serve, problems):
    turnstile = Turnstile()
    engine = serve(ScriptedEngine(*PIECES, gate=turnstile))
    signed_in.goto(proxy.address)
    expect(signed_in.locator("#model")).to_have_text("scripted-model")
    with signed_in.expect_response(re.compile("/events")):
        ask(signed_in, "Count")

    proxy.cut()
    with signed_in.expect_request(re.compile("/events")):
        pass
    turnstile.set()
    expect(answer(signed_in)).to_have_text(WHOLE)
    ended(signed_in)
    one_generation(engine)
    problems.excuse(*BROKEN)


def test_a_prompt_whose_answer_got_lost_is_repeated_and_joins(signed_in, proxy, serve, problems):
    turnstile = Turnstile()
    engine = serve(ScriptedEngine(*PIECES, gate=turnstile))
    signed_in.goto(proxy.address)
    expect(signed_in.locator("#model")).to_have_text("scripted-model")
    proxy.deaf = True  # the server hears, and is not heard
    ask(signed_in, "Count")
    eventually(lambda: len(engine.prompts) == 1)
    proxy.deaf = False
    proxy.cut()
    turnstile.set()

    expect(answer(signed_in)).to_have_text(WHOLE)
    ended(signed_in)
    posts = [head for head in proxy.requests("/chat/new/message/") if head.startswith("POST")]
    keys = {re.search(r"idempotency-key: (\S+)", head.lower())[1] for head in posts}
    assert len(posts) > 1  # the browser repeats by itself what broke on an old connection
    assert len(keys) == 1
    one_generation(engine)
    problems.excuse(*BROKEN)


def test_an_end_that_got_lost_is_read_from_the_record(signed_in, proxy, serve, problems):
    turnstile = Turnstile()
    engine = serve(ScriptedEngine(*PIECES, gate=turnstile))
    signed_in.goto(proxy.address)
    ask(signed_in, "Count")
    turnstile.admit(5)
    expect(answer(signed_in)).to_have_text(WHOLE)

    proxy.cut()
    turnstile.set()
    ended(signed_in)
    expect(answer(signed_in)).to_have_text(WHOLE)
    expect(signed_in.locator(".problem")).to_have_count(0)
    one_generation(engine)
    problems.excuse(*BROKEN)


def test_a_server_that_is_away_for_a_while_is_waited_for(signed_in, proxy, serve, problems):
    turnstile = Turnstile()
    engine = serve(ScriptedEngine(*PIECES, gate=turnstile))
    signed_in.goto(proxy.address)
    ask(signed_in, "Count")
    turnstile.admit(2)
    expect(answer(signed_in)).to_have_text("".join(PIECES[:2]))

    proxy.close()  # connections are refused, as between two processes
    expect(signed_in.locator("#status")).to_have_text("Reconnecting …")
    signed_in.wait_for_timeout(4000)  # the browser tries every three seconds, in vain
    expect(signed_in.locator("#status")).to_have_text("Reconnecting …")
    proxy.reopen()
    turnstile.admit(1)
    expect(answer(signed_in)).to_have_text("".join(PIECES[:3]))
    expect(signed_in.locator("#status")).to_have_text("")

    proxy.fail()  # an HTTP error: now the browser does not come back by itself
    expect(signed_in.locator("#status")).to_have_text("Reconnecting …")
    eventually(lambda: len(proxy.requests("/api/responses/")) > 5)
    turnstile.set()
    proxy.recover()
    expect(answer(signed_in)).to_have_text(WHOLE)
    ended(signed_in)
    assert one_generation(engine).text == WHOLE
    problems.excuse(*BROKEN)


def test_a_stream_without_an_end_goes_on_in_the_next_process(signed_in, serve, problems):
    turnstile = Turnstile()
    serve(ScriptedEngine(*PIECES, gate=turnstile))
    signed_in.goto("/")
    ask(signed_in, "Count")
    turnstile.admit(3)
    expect(answer(signed_in)).to_have_text("".join(PIECES[:3]))

    supervisor.stop()  # every stream ends here, and no `done` was sent
    expect(signed_in.locator("#status")).to_have_text("Reconnecting …")
    engine = serve(ScriptedEngine(*PIECES))
    supervisor.start(recover=True)
    expect(answer(signed_in)).to_have_text(WHOLE)
    ended(signed_in)
    assert engine.resumes == [[ord(char) for char in "".join(PIECES[:3])]]
    assert one_generation(engine).text == WHOLE
    problems.excuse(*BROKEN, "status of 503")


def test_the_stream_of_the_documentation_survives_a_cut(signed_in, proxy, serve, problems):
    turnstile = Turnstile()
    engine = serve(ScriptedEngine(*PIECES, gate=turnstile))
    signed_in.goto(proxy.address)
    signed_in.evaluate(DOCUMENTED)
    turnstile.admit(2)
    eventually(lambda: signed_in.evaluate("shown.length > 10"))
    proxy.cut()
    turnstile.set()
    eventually(lambda: signed_in.evaluate("window.over"))
    assert signed_in.evaluate("window.shown") == WHOLE
    _, second = proxy.requests("/sendMessage")
    assert "last-event-id" in second.lower()
    assert one_generation(engine).surface == "sendMessage"
    problems.excuse(*BROKEN)


def test_the_stream_of_the_documentation_that_broke_before_its_first_byte_is_joined(
    signed_in, proxy, serve, problems
):
    turnstile = Turnstile()
    engine = serve(ScriptedEngine(*PIECES, gate=turnstile))
    signed_in.goto(proxy.address)
    expect(signed_in.locator("#model")).to_have_text("scripted-model")
    proxy.deaf = True  # the server hears, and is not heard
    signed_in.evaluate(DOCUMENTED)
    eventually(lambda: len(engine.prompts) == 1)
    proxy.close()
    proxy.deaf = False
    proxy.reopen()
    turnstile.set()

    eventually(lambda: signed_in.evaluate("window.over"))
    assert signed_in.evaluate("window.shown") == WHOLE
    heads = proxy.requests("/sendMessage")
    assert len(heads) > 1
    assert not any("last-event-id" in head.lower() for head in heads)
    assert one_generation(engine).surface == "sendMessage"
    problems.excuse(*BROKEN)
