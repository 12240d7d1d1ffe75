"""Answers as clients put them back among the messages: with what they keep beside the text."""

from __future__ import annotations

import json

import openai
import pytest

from chat.models import Conversation, Prompt
from tests.fakes import ScriptedEngine

URL = "/v1/chat/completions"
FUNCTION = {
    "name": "get_weather",
    "description": "The weather now",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOLS = [{"type": "function", "function": FUNCTION}]
SAYS_CALL = ("get_weather", "\n```python\n", "tool_call(city='Paris')", "\n```")
ASKED = {"role": "user", "content": "Weather in Paris?"}
CALL = {"id": "c", "type": "function"}


@pytest.fixture
def client(server, key):
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key=key, max_retries=0) as client:
        yield client


def collected(client, **options):
    """The message that the official client's helper makes of a stream."""
    with client.chat.completions.stream(model="demo", messages=[ASKED], **options) as stream:
        return stream.get_final_completion().choices[0].message


def parsed(client, **options):
    """The message that its other helper makes."""
    answer = client.chat.completions.parse(model="demo", messages=[ASKED], **options)
    return answer.choices[0].message


@pytest.mark.parametrize("helper", [collected, parsed])
@pytest.mark.parametrize("kept", [lambda message: message, lambda message: message.model_dump()])
def test_the_official_clients_helpers_make_messages_that_go_back(helper, kept, client, engine):
    message = helper(client)
    client.chat.completions.create(model="demo", messages=[ASKED, kept(message), ASKED])

    assert engine.prompt_text().count("Hello, world") == 1
    assert Conversation.objects.count() == 1


def test_a_call_that_the_streaming_helper_collected_goes_back(client, serve):
    serve(ScriptedEngine(*SAYS_CALL))
    called = collected(client, tools=TOOLS)
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "22"}
    engine = serve(ScriptedEngine("22 degrees."))
    client.chat.completions.create(model="demo", messages=[ASKED, called, result], tools=TOOLS)

    assert "get_weather{'city': 'Paris'}" in engine.prompt_text()
    assert Conversation.objects.count() == 1


@pytest.mark.parametrize(
    "kept",
    [
        {"parsed": None},
        {"parsed": {"t": 22}},
        {"provider_specific_fields": {"refusal": None}},  # LiteLLM, with every answer of ours
        {"provider_specific_fields": None},
    ],
    ids=json.dumps,
)
def test_what_a_client_keeps_of_an_answer_changes_nothing(kept, api, engine):
    said = {"role": "assistant", "content": "Hello, world"}
    for message in (said, {**said, **kept}):
        answer = api.post(URL, json={"messages": [ASKED, message, ASKED]})
        assert answer.status_code == 200, answer.text

    assert engine.prompts[0] == engine.prompts[1]


def test_what_a_client_has_read_of_the_arguments_changes_nothing(api, engine):
    function = {"name": "f", "arguments": '{"a": 1}'}
    for read in ({}, {"parsed_arguments": None}, {"parsed_arguments": {"a": 2}}):
        calls = [{**CALL, "function": {**function, **read}}]
        called = {"role": "assistant", "content": None, "tool_calls": calls}
        result = {"role": "tool", "tool_call_id": "c", "content": "x"}
        answer = api.post(URL, json={"messages": [ASKED, called, result]})
        assert answer.status_code == 200, answer.text

    assert engine.prompts[0] == engine.prompts[1] == engine.prompts[2]
    assert "f{'a': 1}" in engine.prompt_text()


def test_a_tool_may_have_nothing_to_say(client, serve):
    def answered(messages):
        answer = client.chat.completions.create(model="demo", messages=messages, tools=TOOLS)
        return answer.choices[0].message

    serve(ScriptedEngine(*SAYS_CALL))
    called = answered([ASKED])
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": ""}
    engine = serve(ScriptedEngine("Done."))
    done = answered([ASKED, called, result])
    first = engine.prompt_text()
    answered([ASKED, called, result, done, ASKED])

    # The prompt of the next turn is made of rows, and has the empty result as the first had it.
    assert first.endswith("tool: \n")
    assert engine.prompt_text() == f"{first}assistant: Done.\nuser: Weather in Paris?\n"
    assert Conversation.objects.count() == 1
    assert [row.role for row in Prompt.objects.order_by("created_at")] == ["user", "tool", "user"]


def test_what_a_tool_did_not_say_is_answered_once_more(api, engine):
    call = {**CALL, "function": {"name": "f", "arguments": "{}"}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c", "content": ""}
    assert api.post(URL, json={"messages": [ASKED, called, result]}).status_code == 200
    again = api.post(f"/api/prompts/{Prompt.objects.get(role='tool').pk}/responses/", json={})

    assert again.status_code == 201
    assert engine.prompts[0] == engine.prompts[1]


def test_an_empty_result_in_a_history_that_a_client_brought_is_kept(api, engine):
    call = {**CALL, "function": {"name": "f", "arguments": "{}"}}
    messages = [
        ASKED,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": ""},
        {"role": "assistant", "content": "Done."},
        ASKED,
    ]
    for _ in range(2):  # once from the body, once from rows
        assert api.post(URL, json={"messages": messages}).status_code == 200

    assert engine.prompts[0] == engine.prompts[1]
    assert "tool: \n" in engine.prompt_text()


def test_a_user_must_say_something(api, engine):
    answer = api.post(URL, json={"messages": [{"role": "user", "content": " \n"}]})

    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "messages: The last message has no text."
