"""`/v1`: OpenAI's chat completions and models."""

from __future__ import annotations

import json

import pytest

from chat.models import Conversation, Prompt, Response
from tests.fakes import ScriptedEngine, Turnstile

URL = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Say it"}]


def chunks(api, **body) -> tuple[list[dict], str]:
    """The JSON of each chunk, and the raw text of the stream."""
    with api.stream("POST", URL, json={"messages": HELLO, **body, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        raw = response.read().decode()
    lines = [line for line in raw.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines), raw
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]], raw


def test_an_answer_has_openais_shape(api, engine):
    answer = api.post(URL, json={"model": "scripted-model", "messages": HELLO}).json()

    row = Response.objects.get()
    prompt_tokens = len("user: Say it\n")
    assert answer == {
        "id": f"chatcmpl-{row.pk.hex}",
        "object": "chat.completion",
        "created": int(row.prompt.created_at.timestamp()),
        "model": "scripted-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello, world", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": 13,
            "total_tokens": prompt_tokens + 13,
        },
        "omitted": [],
    }
    assert (row.surface, row.status) == ("completion", "done")


def test_a_stream_names_the_role_then_the_text_then_the_end(api, engine):
    received, raw = chunks(api)

    deltas = [chunk["choices"][0]["delta"] for chunk in received]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "Hello"},
        {"content": ", "},
        {"content": "world"},
        {},
    ]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in received]
    assert reasons == [None, None, None, None, "stop"]
    assert {(chunk["object"], chunk["id"]) for chunk in received} == {
        ("chat.completion.chunk", f"chatcmpl-{Response.objects.get().pk.hex}")
    }
    assert not any("usage" in chunk for chunk in received)
    assert "\nid:" not in raw
    assert "event:" not in raw


def test_a_stream_that_was_asked_to_count_ends_with_the_usage(api, engine):
    *others, last = chunks(api, stream_options={"include_usage": True})[0]

    row = Response.objects.get()
    assert {chunk["usage"] for chunk in others} == {None}
    assert last["choices"] == []
    assert (last["id"], last["model"]) == (f"chatcmpl-{row.pk.hex}", "scripted-model")
    assert last["created"] == int(row.prompt.created_at.timestamp())
    assert last["usage"]["completion_tokens"] == 13


def test_an_engine_that_dies_is_an_error_object_and_no_done(api, serve):
    serve(ScriptedEngine("Hel", "lo", fail_at=1))
    with api.stream("POST", URL, json={"messages": HELLO, "stream": True}) as response:
        raw = response.read().decode()

    *_, last, empty = raw.split("\n\n")
    assert (empty, "[DONE]" in raw) == ("", False)
    assert json.loads(last.removeprefix("data: ")) == {
        "error": {
            "message": "The engine died.",
            "type": "server_error",
            "param": None,
            "code": "generation_failed",
        }
    }


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_that_reached_its_length_says_so(api, engine, name):
    answer = api.post(URL, json={"messages": HELLO, name: 3}).json()

    [choice] = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hel", "length")
    assert Response.objects.get().max_tokens == 3


def test_an_answer_that_was_stopped_ends_as_openais_clients_know_it(api, serve):
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    with api.stream("POST", URL, json={"messages": HELLO, "stream": True}) as response:
        gate.admit()
        lines = response.iter_lines()
        assert next(line for line in lines if "Hello" in line)
        api.post(f"/api/responses/{Response.objects.get().pk}/stop")
        *_, end, done = (line.removeprefix("data: ") for line in lines if line)

    assert Response.objects.get().finish_reason == "cancelled"
    assert (json.loads(end)["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")


def test_the_newer_name_of_the_limit_wins_and_keeps_the_rest(api, engine):
    wishes = {"temperature": 0.5, "top_p": 0.5, "seed": 9, "stop": ["!"], "top_k": 3}
    api.post(URL, json={"messages": HELLO, "max_tokens": 9, "max_completion_tokens": 4, **wishes})

    [used] = engine.samplings
    assert (used.max_tokens, used.temperature, used.top_p) == (4, 0.5, 0.5)
    assert (used.seed, used.stop, used.top_k) == (9, ("!",), 3)


@pytest.mark.parametrize("stop", [", ", [", ", "xyz"]])
def test_a_stop_text_ends_the_answer(api, engine, stop):
    [choice] = api.post(URL, json={"messages": HELLO, "stop": stop}).json()["choices"]

    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello", "stop")


def test_content_may_come_in_parts(api, engine):
    parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "it"}]
    api.post(URL, json={"messages": [{"role": "user", "content": parts}]})

    assert Prompt.objects.get().content == "Say it"


def test_developer_is_the_newer_name_of_system(api, engine):
    messages = [{"role": "developer", "content": "Be brief."}, *HELLO]
    api.post(URL, json={"messages": messages})

    assert engine.prompt_text() == "system: Be brief.\nuser: Say it\n"
    assert Conversation.objects.get().system == "Be brief."


def test_what_the_official_client_puts_into_a_resent_answer_is_taken(api, engine):
    resent = {
        "role": "assistant",
        "content": "Hello, world",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    api.post(URL, json={"messages": HELLO})
    messages = [{**HELLO[0], "name": "ada"}, resent, {"role": "user", "content": "Again"}]
    answer = api.post(URL, json={"messages": messages})

    assert answer.status_code == 200
    assert Conversation.objects.count() == 1
    assert Response.objects.count() == 2


def test_a_resent_conversation_is_stored_once(api, engine):
    messages: list[dict] = []
    for turn in range(5):
        messages.append({"role": "user", "content": f"Turn {turn}"})
        answer = api.post(URL, json={"messages": messages}).json()
        messages.append(answer["choices"][0]["message"])

    assert Conversation.objects.count() == 1
    assert Prompt.objects.count() == Response.objects.count() == 5


def test_the_older_body_is_answered_in_the_same_shape(api, engine):
    history = [{"role": "user", "content": "One"}, {"role": "assistant", "content": "1"}]
    answer = api.post(URL, json={"prompt": "Two", "history": history, "model": "demo"}).json()

    assert answer["choices"][0]["message"]["content"] == "Hello, world"
    assert engine.prompt_text() == "user: One\nassistant: 1\nuser: Two\n"


def test_the_older_body_chooses_its_sampling_as_well(api, engine):
    answer = api.post(URL, json={"prompt": "Say it", "max_tokens": 3, "seed": 9}).json()

    [choice] = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hel", "length")
    assert engine.samplings[0].seed == 9


@pytest.mark.parametrize("name", ["scripted-model", "demo", "gpt-4o", "org/model"])
def test_the_model_answers_to_its_name_its_setting_and_its_aliases(api, engine, settings, name):
    settings.LLMSITE_MODEL_ALIASES = ["gpt-4o", "org/model"]

    assert api.post(URL, json={"model": name, "messages": HELLO}).json()["model"] == (
        "scripted-model"
    )
    assert api.get(f"/v1/models/{name}").json()["id"] == "scripted-model"


def test_another_model_is_not_found(api, engine):
    for answer in (
        api.post(URL, json={"model": "gpt-5", "messages": HELLO}),
        api.get("/v1/models/gpt-5"),
    ):
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "gpt-5" in error["message"]
    assert not Prompt.objects.exists()


def test_the_list_of_models_says_what_is_served(api, engine):
    body = api.get("/v1/models").json()

    [entry] = body["data"]
    assert body["object"] == "list"
    assert entry == api.get("/v1/models/scripted-model").json()
    assert (entry["id"], entry["object"], entry["owned_by"]) == (
        "scripted-model",
        "model",
        "llmsite",
    )
    assert (entry["revision"], entry["context_length"]) == ("r1", 4096)
    assert isinstance(entry["created"], int)
