"""ChatGLM3 behind the whole service: its answers, its adapter in the record."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Installation

SHARED = Path(__file__).resolve().parents[3] / "shared" / "chatglm3"

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        not SHARED.is_dir(), reason="the reference checkpoint is not beside the repository"
    ),
]


@pytest.fixture(scope="module")
def chatglm(tmp_path_factory):
    made = Installation(
        tmp_path_factory.mktemp("data"),
        LLMSITE_MODEL=str(SHARED / "chatglm3-tiny"),
        LLMSITE_ADAPTER=str(SHARED / "lora-tiny"),
    )
    made.start()
    yield made
    made.end(signal.SIGKILL)


def test_the_adapter_answers_and_stands_in_the_record(chatglm):
    case = json.loads((SHARED / "lora_cases.json").read_text())[0]
    with chatglm.client() as client:
        body = {"prompt": case["query"], "max_tokens": len(case["greedy_ids"])}
        answer = client.post("/chat/new/message/", json=body).json()
        row = client.get(f"/api/responses/{answer['message_id']}/").json()
        [model] = client.get("/v1/models").json()["data"]

    assert row["token_ids"] == case["greedy_ids"]
    assert row["text"] == answer["response"] != ""
    assert row["adapter"].startswith("lora-tiny@")
    assert model["adapter"] == row["adapter"]
    assert model["id"] == row["model"] == "chatglm3-tiny"


def test_tools_reach_the_prompt(chatglm):
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 40}}]
    messages = [{"role": "user", "content": "Hi"}]
    with chatglm.client() as client:
        body = {"model": "chatglm3-tiny", "messages": messages, "max_tokens": 2}
        plain = client.post("/v1/chat/completions", json=body).json()
        offered = client.post("/v1/chat/completions", json={**body, "tools": tools}).json()

    assert offered["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 20
