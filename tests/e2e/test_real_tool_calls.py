"""Calls that a real network wrote, through engine, rows and socket, to the official client."""

from __future__ import annotations

import json
from pathlib import Path

import openai
import pytest

from chat.lifecycle.supervisor import supervisor
from chat.models import Prompt, Response
from modelhost.chatglm import ChatGLMFormat
from modelhost.host import host
from modelhost.loading import load
from modelhost.progress import Progress
from modelhost.types import ModelSpec, Role, ToolCall, Turn
from tests.modelhost.forced import SHARED, TINY, HubModel, chatglm_that_says
from tests.modelhost.transcript import chatglm_call

FUNCTION = {
    "name": "get_weather",
    "description": "The weather now",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOLS = [{"type": "function", "function": FUNCTION}]
QUESTION = "北京的天气?"
ASKED = {"role": "user", "content": QUESTION}
CALL = ToolCall("get_weather", {"city": "北京"})
TAGGED = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "北京"}}\n</tool_call>'
RESULT = '{"t": 22}'
ANSWER = "22 度。"


def of_the_hub(folder: Path, *, tags: bool) -> Path:
    """A model that calls, and answers what the call gave; tags as tokens (Qwen) or as text."""
    model = HubModel(folder, tags=tags)
    asked = [Turn(Role.USER, QUESTION)]
    done = [*asked, Turn(Role.ASSISTANT, "", tool_calls=(CALL,)), Turn(Role.TOOL, RESULT)]
    model.says(
        [
            (model.format.encode(asked, [FUNCTION]), model.answer_ids(TAGGED)),
            (model.format.encode(done, [FUNCTION]), model.answer_ids(ANSWER)),
        ]
    )
    return folder


def of_chatglm(folder: Path) -> Path:
    """ChatGLM3 that calls."""
    if not SHARED.is_dir():
        pytest.skip("the reference checkpoint of ChatGLM3 is not beside the repository")
    chat_format = ChatGLMFormat(TINY / "tokenizer.model")
    prompt = chat_format.encode([Turn(Role.USER, QUESTION)], [FUNCTION])
    return chatglm_that_says(folder, [(prompt, chatglm_call(chat_format))])


MODELS = {
    "tags as tokens": lambda folder: of_the_hub(folder, tags=True),
    "tags as text": lambda folder: of_the_hub(folder, tags=False),
    "chatglm": of_chatglm,
}


@pytest.fixture
def serve_model():
    """Makes a folder this process's model, loaded as the server loads it."""

    def use(folder: Path) -> None:
        spec = ModelSpec(model=str(folder), device="cpu", cache_tokens=2048)
        host.serve_with(load(spec, Progress()))

    yield use
    supervisor.stop()
    host.unload()


@pytest.fixture
def client(server, key):
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key=key, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_call_comes_whole_and_streamed_and_stands_in_its_row(make, client, serve_model, tmp_path):
    serve_model(make(tmp_path / "model"))

    whole = client.chat.completions.create(model="model", messages=[ASKED], tools=TOOLS)
    with client.chat.completions.stream(model="model", messages=[ASKED], tools=TOOLS) as stream:
        streamed = stream.get_final_completion()

    for completion in (whole, streamed):
        [choice] = completion.choices
        assert choice.finish_reason == "tool_calls"
        assert not choice.message.content
        [call] = choice.message.tool_calls
        assert call.function.name == CALL.name
        assert json.loads(call.function.arguments) == CALL.arguments
    for row in Response.objects.all():
        assert row.tool_calls == [{"name": CALL.name, "arguments": CALL.arguments}]
        assert (row.status, row.finish_reason, row.text) == ("done", "tool_calls", "")
    assert Response.objects.count() == 2


@pytest.mark.parametrize("tags", [True, False], ids=["tags as tokens", "tags as text"])
def test_the_result_goes_in_through_the_template_and_is_answered(
    tags, client, serve_model, tmp_path
):
    serve_model(of_the_hub(tmp_path / "model", tags=tags))
    first = client.chat.completions.create(model="model", messages=[ASKED], tools=TOOLS)
    called = first.choices[0].message
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": RESULT}

    second = client.chat.completions.create(
        model="model", messages=[ASKED, called.model_dump(), result], tools=TOOLS
    )

    # Only the prompt that the template makes of call and result is answered like this.
    assert second.choices[0].message.content == ANSWER
    assert second.choices[0].finish_reason == "stop"
    stored = Prompt.objects.order_by("created_at").values_list("role", "content")
    assert list(stored) == [("user", QUESTION), ("tool", RESULT)]
