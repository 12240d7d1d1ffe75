"""Code in the answers of the chat page: in blocks of its own, and still nothing but text."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.chat.handling import answer, ask, button, ended
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually

pytest_plugins = ["tests.browser"]

# Fences come in parts, as tokens do.
PIECES = (
    "Look:\n\n``",
    "`py",
    "thon\nfor <b>x</b>",
    " in y:\n    " + "go() " * 40,
    "\n``",
    "`\n\nThat `is` all",
    ".",
)
CODE = "for <b>x</b> in y:\n    " + "go() " * 40 + "\n"
NO_FENCES = ("Say ```this``` in a line.", "``", "~~ no ~~\n```")
BLOCKS = {
    "1. So:\n   ```sh\n   ls\n     -l\n   ```\n2. Done": "ls\n  -l\n",
    "````md\n```\ninner\n```\n````": "```\ninner\n```\n",
    "~~~\na\n```\nb\n~~~": "a\n```\nb\n",
    "```\nnot closed": "not closed",
    "```\nclosed\n  ```  ": "closed\n",
    "~~~sh\r\nls\r\n~~~\r\n": "ls\r\n",
}
SPACES = 40_000


def test_code_grows_in_a_block_of_its_own(signed_in, serve):
    turnstile = Turnstile()
    serve(ScriptedEngine(*PIECES, gate=turnstile))
    signed_in.goto("/")
    ask(signed_in, "Write it")
    code = signed_in.locator(".turn.assistant pre code")
    turnstile.admit(2)
    expect(answer(signed_in)).to_have_text("Look:")
    turnstile.admit()
    expect(code).to_have_text("for <b>x</b>")
    code.evaluate("(code) => (code.from = 'before')")
    turnstile.set()
    ended(signed_in)
    assert code.evaluate("(code) => code.from") == "before"

    for _ in range(2):  # as it streams, and from the record
        assert code.text_content() == CODE
        expect(signed_in.locator(".code .bar span")).to_have_text("python")
        said = answer(signed_in).text_content()
        assert said.startswith("Look:\n\n")
        assert said.endswith("\nThat `is` all.")
        assert "```" not in said
        assert signed_in.locator("#transcript b").count() == 0
        signed_in.reload()
        ended(signed_in)


def test_long_lines_are_scrolled_inside_their_block(signed_in, serve):
    serve(ScriptedEngine(*PIECES))
    signed_in.set_viewport_size({"width": 390, "height": 780})
    signed_in.goto("/")
    ask(signed_in, "Write it")
    ended(signed_in)

    assert signed_in.evaluate("document.documentElement.scrollWidth <= innerWidth")
    block = signed_in.locator(".code pre")
    assert block.evaluate("(pre) => pre.scrollWidth > 2 * pre.clientWidth")
    assert "mono" in block.evaluate("(pre) => getComputedStyle(pre.firstChild).fontFamily")
    block.focus()
    signed_in.keyboard.press("ArrowRight")
    eventually(lambda: block.evaluate("(pre) => pre.scrollLeft") > 0)


def test_code_can_be_copied(signed_in, context, serve):
    serve(ScriptedEngine(*PIECES))
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    signed_in.goto("/")
    ask(signed_in, "Write it")
    ended(signed_in)
    copied = "navigator.clipboard.readText()"
    button(signed_in, "Copy this code").click()
    expect(signed_in.locator(".copy")).to_have_text("Copied")
    assert signed_in.evaluate(copied) == CODE.rstrip("\n")

    signed_in.evaluate("navigator.clipboard.writeText('')")
    # As over HTTP from another machine.
    signed_in.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    button(signed_in, "Copy this code").click()
    selected = signed_in.evaluate("getSelection().toString()")
    assert selected.strip() == CODE.strip()


def test_an_answer_is_copied_without_what_stands_on_its_blocks(signed_in, context, serve):
    serve(ScriptedEngine(*PIECES))
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    signed_in.goto("/")
    ask(signed_in, "Write it")
    ended(signed_in)
    signed_in.locator("#transcript").focus()
    answer(signed_in).evaluate("(it) => getSelection().selectAllChildren(it)")
    signed_in.keyboard.press("Control+C")

    copied = signed_in.evaluate("navigator.clipboard.readText()")
    lines = [line.rstrip() for line in copied.splitlines() if line.strip()]
    assert lines == ["Look:", *(line.rstrip() for line in CODE.splitlines()), "That `is` all."]


def test_only_fences_make_blocks(signed_in, serve):
    serve(ScriptedEngine())
    signed_in.goto("/")
    for text in NO_FENCES:
        serve(ScriptedEngine(text))
        ask(signed_in, "Write it")
        ended(signed_in)
        assert answer(signed_in).text_content() == text
    for index, (text, code) in enumerate(BLOCKS.items()):
        serve(ScriptedEngine(*text))  # character by character
        ask(signed_in, "Write it")
        ended(signed_in)
        expect(signed_in.locator("pre")).to_have_count(index + 1)
        assert signed_in.locator("pre").last.text_content() == code


GROW = """async (pieces) => {
    const { growingText } = await import("/static/chat/prose.js");
    const box = document.createElement("div");
    const text = growingText(box);
    const begun = performance.now();
    let whole = "";
    for (const piece of pieces) text.show((whole += piece));
    text.end();
    const code = box.querySelector("code")?.textContent;
    return [code, performance.now() - begun];
}"""


def test_however_a_text_comes_its_blocks_are_the_same(signed_in, serve):
    serve(ScriptedEngine())
    signed_in.goto("/")
    for text, code in BLOCKS.items():
        for pieces in ([text], list(text)):
            assert signed_in.evaluate(GROW, pieces)[0] == code


def test_a_long_line_of_spaces_in_code_does_not_stop_the_page(signed_in, serve):
    serve(ScriptedEngine())
    signed_in.goto("/")
    code, took = signed_in.evaluate(GROW, ["```\n", " " * SPACES, "x", "\n```\n"])

    assert code == " " * SPACES + "x\n"
    assert took < 1000  # milliseconds
