"""Tools on `/v1/chat/completions`: offered, called, answered, all of it in the record."""

from __future__ import annotations

import json

import openai
import pytest
from pydantic import BaseModel

from chat.models import Conversation, Prompt, Response
from tests.fakes import ScriptedEngine

FUNCTION = {
    "name": "get_weather",
    "description": "The weather now",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOLS = [{"type": "function", "function": FUNCTION}]
CALL = ("get_weather", "\n```python\n", "tool_call(city='北京', days=2)", "\n```")
ASKED = {"role": "user", "content": "Weather in Beijing?"}


class Weather(BaseModel):
    """The weather now."""

    city: str


@pytest.fixture
def client(server, key):
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key=key, max_retries=0) as client:
        yield client


def test_a_call_comes_back_as_tool_calls(client, serve):
    engine = serve(ScriptedEngine(*CALL))

    answer = client.chat.completions.create(model="demo", messages=[ASKED], tools=TOOLS)

    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    [call] = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "北京", "days": 2}
    assert engine.tools == [FUNCTION]
    row = Response.objects.get()
    assert row.tools == [FUNCTION]
    assert row.tool_calls == [{"name": "get_weather", "arguments": {"city": "北京", "days": 2}}]
    assert row.finish_reason == "tool_calls"
    assert row.text == ""


def test_a_call_with_keys_that_json_does_not_have_is_one_and_stops_nobody(client, serve):
    serve(ScriptedEngine(*CALL[:2], "tool_call(city={1: 2, 'b': 3})", CALL[3]))

    answer = client.chat.completions.create(model="demo", messages=[ASKED], tools=TOOLS)

    [call] = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": {"1": 2, "b": 3}}
    assert Response.objects.get().status == "done"


def test_a_streamed_call_assembles_to_the_same(client, serve):
    serve(ScriptedEngine(*CALL))

    with client.chat.completions.stream(model="demo", messages=[ASKED], tools=TOOLS) as stream:
        final = stream.get_final_completion()

    [call] = final.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "北京", "days": 2}
    assert final.choices[0].finish_reason == "tool_calls"


def test_plain_text_stays_text_when_tools_are_offered(client, serve):
    serve(ScriptedEngine("\n", " It is", " sunny."))

    answer = client.chat.completions.create(model="demo", messages=[ASKED], tools=TOOLS)

    assert answer.choices[0].message.content == "It is sunny."
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"


def test_the_result_goes_in_as_a_turn_and_the_whole_is_one_conversation(client, serve):
    serve(ScriptedEngine(*CALL))
    first = client.chat.completions.create(model="demo", messages=[ASKED], tools=TOOLS)
    called = first.choices[0].message
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": '{"t": 22}'}
    engine = serve(ScriptedEngine("22 degrees."))

    second = client.chat.completions.create(
        model="demo", messages=[ASKED, called.model_dump(), result], tools=TOOLS
    )

    assert second.choices[0].message.content == "22 degrees."
    assert "tool: " + '{"t": 22}' in engine.prompt_text()
    assert "get_weather{'city': '北京', 'days': 2}" in engine.prompt_text()
    assert Conversation.objects.count() == 1
    assert list(Prompt.objects.order_by("created_at").values_list("role", "content")) == [
        ("user", "Weather in Beijing?"),
        ("tool", '{"t": 22}'),
    ]


def test_tool_choice_none_offers_no_tools(client, serve):
    engine = serve(ScriptedEngine("Hi"))

    client.chat.completions.create(model="demo", messages=[ASKED], tools=TOOLS, tool_choice="none")

    assert list(engine.tools) == []


BAD = {
    "required": ({"tool_choice": "required"}, "tool_choice"),
    "named": (
        {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        "tool_choice",
    ),
    "no name": ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
    "bad name": (
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        "tools.0.function.name",
    ),
    "not a function": ({"tools": [{"type": "retrieval"}]}, "tools.0.type"),
    "strict": (
        {"tools": [{"type": "function", "function": {"name": "a", "strict": True}}]},
        "tools.0.function.strict",
    ),
    "arguments": (
        {
            "messages": [
                ASKED,
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": "{"}}],
                },
                {"role": "tool", "content": "x"},
            ]
        },
        "messages.1.tool_calls.0.function.arguments",
    ),
    "a user's call": (
        {"messages": [{**ASKED, "tool_calls": [{"function": {"name": "f", "arguments": ""}}]}]},
        "messages.0.tool_calls",
    ),
    "nothing said": ({"messages": [{"role": "assistant"}, ASKED]}, "messages.0.content"),
}


def test_who_asks_for_strict_arguments_hears_what_to_do(client, engine):
    function = openai.pydantic_function_tool(Weather)
    with pytest.raises(openai.BadRequestError, match=r"Turn strict tools off\."):
        client.chat.completions.create(model="demo", messages=[ASKED], tools=[function])


@pytest.mark.parametrize(("change", "named"), BAD.values(), ids=BAD)
def test_what_cannot_be_done_is_refused_by_name(api, engine, change, named):
    body = {"model": "demo", "messages": [ASKED], "tools": TOOLS, **change}

    answer = api.post("/v1/chat/completions", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == named
    assert Response.objects.count() == 0
