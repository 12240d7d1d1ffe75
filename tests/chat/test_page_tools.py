"""Tool calls on the chat page: shown, where a text would be."""

from __future__ import annotations

from playwright.sync_api import expect

from chat.models import Response
from tests.chat.handling import answer, button, ended
from tests.fakes import ScriptedEngine

pytest_plugins = ["tests.browser"]

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALL = ("weather", "\n```python\n", "tool_call(city='<b>北京', days=2)", "\n```")


def test_a_turn_of_calls_says_what_it_calls(signed_in, api, serve):
    serve(ScriptedEngine(*CALL))
    body = {"messages": [{"role": "user", "content": "Rain?"}], "tools": TOOLS}
    assert api.post("/v1/chat/completions", json=body).status_code == 200
    signed_in.goto(f"/?conversation={Response.objects.get().prompt.conversation_id}")

    for _ in range(2):  # from the record, and as it happens
        expect(signed_in.locator(".call")).to_have_text('weather(city="<b>北京", days=2)')
        expect(answer(signed_in)).to_have_text("")
        ended(signed_in)
        button(signed_in, "Answer again").click()
        expect(signed_in.locator(".turn.assistant .versions")).to_be_visible()
    expect(signed_in.locator(".call")).to_have_count(1)
    ended(signed_in)
