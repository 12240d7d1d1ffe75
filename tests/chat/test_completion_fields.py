"""The body of `POST /v1/chat/completions`: every field of the official client is decided."""

from __future__ import annotations

import json
from typing import get_type_hints

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from chat.models import Prompt, Response
from chat.wire.completion_requests import NEUTRAL, RECORDED, CompletionSerializer
from tests.fakes import ScriptedEngine

URL = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Say it"}]

# What asks for something, for each field that only its neutral value is taken of.
ASKING = {
    "n": [2, 0, True, "1", 1.5],
    "frequency_penalty": [0.5, "0", False],
    "presence_penalty": [-1, [], True],
    "logprobs": [True, 1],
    "top_logprobs": [5, False],
    "logit_bias": [{"5": 10}, []],
    "response_format": [{"type": "json_object"}, "text"],
    "modalities": [["text", "audio"], "text"],
    "tools": [[{"type": "function", "function": {"name": "f"}}], {}],
    "tool_choice": ["required", {"type": "function"}],
    "parallel_tool_calls": ["true", 1],
    "functions": [[{"name": "f"}]],
    "function_call": [{"name": "f"}],
    "reasoning_effort": ["high"],
    "verbosity": ["low"],
    "audio": [{"voice": "alloy", "format": "wav"}],
    "prediction": [{"type": "content", "content": "x"}],
    "web_search_options": [{}],
    "prompt_cache_retention": ["24h"],
    "prompt_cache_options": [{}],
    "moderation": [{}],
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_field_that_asks_for_what_is_not_served_is_refused_by_name(api, engine, name):
    for value in ASKING[name]:
        answer = api.post(URL, json={"messages": HELLO, name: value})
        assert answer.status_code == 400, value
        assert answer.json()["error"]["param"] == name
    assert not Prompt.objects.exists()


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_field_that_asks_for_nothing_is_taken(api, engine, name):
    for value in (*NEUTRAL[name], None):
        answer = api.post(URL, json={"messages": HELLO, name: value})
        assert answer.status_code == 200, (value, answer.text)


def test_every_recorded_field_is_stored(api, engine):
    told = {
        "user": "u-1",
        "metadata": {"run": "7", "tags": ["a", {"b": None}]},
        "store": True,
        "safety_identifier": "s-1",
        "prompt_cache_key": "k-1",
        "service_tier": "auto",
    }
    assert set(told) == set(RECORDED)
    answer = api.post(URL, json={"messages": HELLO, **told})

    assert answer.status_code == 200
    assert Response.objects.get().client == told


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_field_of_null_says_nothing(api, engine, name):
    assert api.post(URL, json={"messages": HELLO, name: None}).status_code == 200
    assert Response.objects.get().client == {}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_cannot_be_stored_as_json_is_not_recorded(api, engine, number):
    body = json.dumps({"messages": HELLO})[:-1] + f', "metadata": {{"a": [{number}]}}}}'
    answer = api.post(URL, content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "metadata"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_tools_and_calls_that_cannot_be_stored_as_json_are_refused(api, engine, number):
    tools = '[{"type": "function", "function": {"name": "f", "parameters": {"a": [NUMBER]}}}]'
    offered = f'{{"messages": {json.dumps(HELLO)}, "tools": {tools.replace("NUMBER", number)}}}'
    call = {"function": {"name": "f", "arguments": f'{{"a": {number}}}'}}
    answers = [*HELLO, {"role": "assistant", "tool_calls": [call]}, *HELLO]
    called = json.dumps({"messages": answers})

    for body, param in (
        (offered, "tools.0.function.parameters"),
        (called, "messages.1.tool_calls.0.function.arguments"),
    ):
        answer = api.post(URL, content=body, headers={"Content-Type": "application/json"})

        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param
    assert not Prompt.objects.exists()


def test_every_parameter_of_the_official_client_is_decided():
    known = get_type_hints(CompletionCreateParamsStreaming)
    decided = {*NEUTRAL, *RECORDED, *CompletionSerializer().fields} - {"client"}
    assert set(known) <= decided
    assert decided - set(known) == {"top_k", "on_disconnect"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": HELLO, "client": {"a": 1}}, "client"),
        ({"messages": HELLO, "colour": "red"}, "colour"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "Say it"}, "messages"),
        ({"messages": ["Say it"]}, "messages.0"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages.0.content",
        ),
        ({"messages": [*HELLO, {"role": "function", "content": "x"}]}, "messages.1.role"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{**HELLO[0], "color": 1}]}, "messages.0.color"),
        ({"messages": [{**HELLO[0], "audio": {"id": "x"}}]}, "messages.0.audio"),
        ({"messages": [{**HELLO[0], "tool_calls": [{}]}]}, "messages.0.tool_calls.0.function"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages"),
        (
            {"messages": HELLO, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
        ),
        ({"messages": HELLO, "stream_options": {"x": 1}}, "stream_options.x"),
        (
            {"messages": HELLO, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
        ({"messages": HELLO, "max_completion_tokens": 0}, "max_completion_tokens"),
        ({"messages": HELLO, "max_completion_tokens": 5000}, "max_completion_tokens"),
        ({"messages": HELLO, "max_tokens": 5000}, "max_tokens"),
        ({"messages": HELLO, "user": 5}, "user"),
        ({"messages": HELLO, "metadata": "x"}, "metadata"),
        ({"messages": HELLO, "store": "yes"}, "store"),
        ({"messages": HELLO, "prompt": "x"}, "messages"),
        ({"model": "demo"}, "messages"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_body_is_refused_by_the_fields_name(api, engine, body, param):
    answer = api.post(URL, json=body)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["type"], error["code"]) == (
        param,
        "invalid_request_error",
        "invalid_request",
    )
    assert not Prompt.objects.exists()


def test_a_conversation_that_is_too_long_is_said_to_be_so(api, serve):
    serve(ScriptedEngine(context_length=50))
    answer = api.post(URL, json={"messages": [{"role": "user", "content": "A" * 60}]})

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
