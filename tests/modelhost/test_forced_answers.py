"""Exact answers out of the running engine: each delta of a text, each call of a tool."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelhost.chatglm import ChatGLMFormat
from modelhost.engine import Engine
from modelhost.loading import load
from modelhost.progress import Progress
from modelhost.types import FinishReason, ModelSpec, Role, Sampling, ToolCall, Turn
from tests.modelhost.forced import SHARED, TINY, HubModel, chatglm_that_says
from tests.modelhost.transcript import TRANSCRIPT, chatglm_call, transcript_ids

needs_checkpoint = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the reference checkpoint of ChatGLM3 is not beside the repository"
)

ASKED = Turn(Role.USER, "北京的天气?")
CALL = ToolCall("get_weather", {"city": "北京"})
TOOL = {
    "name": "get_weather",
    "description": "The weather now",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TAGGED = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "北京"}}\n</tool_call>'


@pytest.fixture
def start():
    """An engine from a folder, through the product's own loader; stopped after the test."""
    engines: list[Engine] = []

    def run(folder: Path) -> Engine:
        spec = ModelSpec(model=str(folder), device="cpu", cache_tokens=2048)
        engines.append(load(spec, Progress()))
        return engines[-1]

    yield run
    for engine in engines:
        engine.stop()


@pytest.fixture
def chat_format():
    return ChatGLMFormat(TINY / "tokenizer.model")


@needs_checkpoint
def test_chatglms_greeting_leaves_the_engine_in_its_24_deltas(chat_format, start, finish, tmp_path):
    prompt = chat_format.encode([Turn(Role.USER, "你好")])
    engine = start(chatglm_that_says(tmp_path / "model", [(prompt, transcript_ids(chat_format))]))

    ticket = engine.submit(prompt, Sampling(max_tokens=64))

    pieces = finish(ticket)
    assert [piece.text for piece in pieces if piece.text] == TRANSCRIPT
    assert [one for piece in pieces for one in piece.token_ids] == transcript_ids(chat_format)
    assert ticket.finish.reason is FinishReason.STOP


@needs_checkpoint
def test_chatglms_call_leaves_the_engine_as_data_and_without_a_word(
    chat_format, start, finish, tmp_path
):
    prompt = chat_format.encode([ASKED], [TOOL])
    engine = start(chatglm_that_says(tmp_path / "model", [(prompt, chatglm_call(chat_format))]))

    rendered = engine.render([ASKED], tools=[TOOL])
    ticket = engine.submit(rendered.token_ids, Sampling(max_tokens=64), tools=[TOOL])

    assert "".join(piece.text for piece in finish(ticket)) == ""
    assert ticket.finish.reason is FinishReason.TOOL_CALLS
    assert ticket.finish.tool_calls == (CALL,)


@pytest.mark.parametrize("tags", [True, False], ids=["tags are tokens", "tags are text"])
def test_a_hub_models_call_leaves_the_engine_as_data_and_its_result_goes_in(
    tags, start, finish, tmp_path
):
    model = HubModel(tmp_path / "tools", tags=tags)
    result = [ASKED, Turn(Role.ASSISTANT, "", tool_calls=(CALL,)), Turn(Role.TOOL, '{"t": 22}')]
    model.says(
        [
            (model.format.encode([ASKED], [TOOL]), model.answer_ids(TAGGED)),
            (model.format.encode(result, [TOOL]), model.answer_ids("22 度。")),
        ]
    )
    engine = start(model.folder)

    def ask(turns: list[Turn]):
        prompt = engine.render(turns, tools=[TOOL]).token_ids
        ticket = engine.submit(prompt, Sampling(max_tokens=200), tools=[TOOL])
        return "".join(piece.text for piece in finish(ticket)), ticket.finish

    assert ask([ASKED])[0] == ""
    assert ask([ASKED])[1].reason is FinishReason.TOOL_CALLS
    assert ask([ASKED])[1].tool_calls == (CALL,)
    assert ask(result)[0] == "22 度。"
    assert ask(result)[1].reason is FinishReason.STOP


@pytest.mark.parametrize("tags", [True, False], ids=["tags are tokens", "tags are text"])
def test_calls_and_results_are_rendered_as_the_models_own_template_writes_them(tags, tmp_path):
    model = HubModel(tmp_path / "tools", tags=tags)
    turns = [ASKED, Turn(Role.ASSISTANT, "", tool_calls=(CALL,)), Turn(Role.TOOL, '{"t": 22}')]
    called = {"type": "function", "function": {"name": CALL.name, "arguments": CALL.arguments}}

    written = model.tokenizer.apply_chat_template(
        [
            {"role": "user", "content": ASKED.content},
            {"role": "assistant", "content": "", "tool_calls": [called]},
            {"role": "tool", "content": '{"t": 22}'},
        ],
        tools=[{"type": "function", "function": TOOL}],
        tokenize=False,
        add_generation_prompt=True,
    )

    assert model.tokenizer.decode(model.format.encode(turns, [TOOL])) == written
    assert '<tool_response>\n{"t": 22}\n</tool_response>' in written
    assert TAGGED in written
