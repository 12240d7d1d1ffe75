"""The unmodified `openai` client, over a real socket."""

from __future__ import annotations

import openai
import pytest

from chat.models import ApiKey, Conversation, Prompt, Response
from modelhost.host import host
from tests.fakes import ScriptedEngine

HELLO = [{"role": "user", "content": "Say it"}]


@pytest.fixture
def client(server, key):
    """A client as its users make it."""
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key=key, max_retries=0) as made:
        yield made


def test_a_completion(client, engine):
    answer = client.chat.completions.create(model="scripted-model", messages=HELLO, seed=7)

    assert answer.choices[0].message.content == "Hello, world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == len("user: Say it\n") + 13
    assert Response.objects.get().seed == 7


def test_a_stream(client, engine):
    stream = client.chat.completions.create(
        model="scripted-model",
        messages=HELLO,
        stream=True,
        stream_options={"include_usage": True},
    )
    received = list(stream)

    texts = [chunk.choices[0].delta.content or "" for chunk in received if chunk.choices]
    assert "".join(texts) == "Hello, world"
    assert received[-2].choices[0].finish_reason == "stop"
    assert received[-1].usage.completion_tokens == 13


def test_the_streaming_helper_collects_the_same_answer(client, engine):
    with client.chat.completions.stream(model="demo", messages=HELLO) as stream:
        answer = stream.get_final_completion()

    assert answer.choices[0].message.content == "Hello, world"


async def test_the_asynchronous_client(server, key, engine):
    options = {"base_url": f"{server.address}/v1", "api_key": key, "max_retries": 0}
    async with openai.AsyncOpenAI(**options) as client:
        answer = await client.chat.completions.create(model="demo", messages=HELLO)
        stream = await client.chat.completions.create(model="demo", messages=HELLO, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]

    assert answer.choices[0].message.content == "".join(texts) == "Hello, world"


def test_thirty_turns_of_the_clients_own_messages_are_one_conversation(client, engine):
    messages: list = []
    for turn in range(30):
        messages.append({"role": "user", "content": f"Turn {turn}"})
        answer = client.chat.completions.create(model="demo", messages=messages)
        messages.append(answer.choices[0].message)

    assert Conversation.objects.count() == 1
    assert Response.objects.count() == 30
    prompts = list(Prompt.objects.order_by("created_at").prefetch_related("responses"))
    assert [row.content for row in prompts] == [f"Turn {turn}" for turn in range(30)]
    answers = [row.responses.get().pk for row in prompts]
    assert [row.follows_id for row in prompts] == [None, *answers[:-1]]


def test_models(client, engine):
    assert [model.id for model in client.models.list()] == ["scripted-model"]
    assert client.models.retrieve("demo").id == "scripted-model"


def test_a_bad_field_is_a_bad_request(client, engine):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="demo", messages=HELLO, temperature=3)
    assert (caught.value.param, caught.value.code) == ("temperature", "invalid_request")


def test_a_wrong_key_is_an_authentication_error(server, user, engine):
    with (
        openai.OpenAI(base_url=f"{server.address}/v1", api_key="llms_no", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.models.list()
    assert caught.value.code == "not_authenticated"


def test_another_model_is_a_not_found_error(client, engine):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-5", messages=HELLO)
    assert caught.value.code == "model_not_found"


def test_another_route_of_openais_is_a_not_found_error_that_names_ours(client, engine):
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions") as caught:
        client.responses.create(model="demo", input="Say it")
    assert caught.value.code == "not_found"


def test_an_address_without_v1_is_a_not_found_error_that_names_it(server, key, engine):
    with (
        openai.OpenAI(base_url=server.address, api_key=key, max_retries=0) as client,
        pytest.raises(openai.NotFoundError, match="/v1/chat/completions"),
    ):
        client.chat.completions.create(model="demo", messages=HELLO)


def test_a_full_engine_is_a_rate_limit_error(client, serve):
    serve(ScriptedEngine(max_requests=0))
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="demo", messages=HELLO)
    assert caught.value.code == "too_many_requests"
    assert caught.value.response.headers["Retry-After"] == "10"


def test_a_model_that_is_not_loaded_is_an_internal_server_error(client):
    host.unload()
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="demo", messages=HELLO)
    assert caught.value.code == "model_loading"


def test_a_refused_request_was_not_retried_and_stored_nothing(client, key, engine):
    ApiKey.objects.get().revoke()
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model="demo", messages=HELLO)
    assert engine.prompts == []


def test_a_stream_that_breaks_raises_our_sentence(client, serve):
    serve(ScriptedEngine("Hel", "lo", fail_at=1))
    stream = client.chat.completions.create(model="demo", messages=HELLO, stream=True)
    texts = []
    with pytest.raises(openai.APIError, match=r"The engine died\.") as caught:
        texts += [chunk.choices[0].delta.content for chunk in stream]
    assert caught.value.code == "generation_failed"


def test_a_heartbeat_does_not_disturb_the_client(client, serve, gate, monkeypatch):
    monkeypatch.setattr("chat.lifecycle.live.HEARTBEAT", 0.001)
    monkeypatch.setattr("chat.views.completions.sse_response", _opening(gate))
    serve(ScriptedEngine("Hello", gate=gate))
    stream = client.chat.completions.create(model="demo", messages=HELLO, stream=True)

    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello"


def _opening(gate):
    """`sse_response` that opens the gate after some pings."""
    from chat.wire.events import PING
    from chat.wire.streams import sse_response

    async def counted(chunks):
        pings = 0
        async for chunk in chunks:
            pings += chunk == PING
            if pings == 3:
                gate.set()
            yield chunk

    return lambda request, chunks, broken: sse_response(request, counted(chunks), broken=broken)
