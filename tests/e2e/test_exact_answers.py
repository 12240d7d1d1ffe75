"""The transcript of ChatGLM3's greeting over a real socket, delta by delta."""

from __future__ import annotations

import signal

import openai
import pytest

from modelhost.chatglm import ChatGLMFormat
from modelhost.types import Role, Turn
from tests.e2e.conftest import Installation
from tests.modelhost.forced import SHARED, TINY, chatglm_that_says
from tests.modelhost.transcript import TRANSCRIPT, transcript_ids
from tests.web import Event, stream

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        not SHARED.is_dir(), reason="the reference checkpoint is not beside the repository"
    ),
]

GREETING = "你好"


@pytest.fixture(scope="module")
def greeter(tmp_path_factory):
    """A server whose ChatGLM answers that greeting with the transcript."""
    chat_format = ChatGLMFormat(TINY / "tokenizer.model")
    prompt = chat_format.encode([Turn(Role.USER, GREETING)])
    model = tmp_path_factory.mktemp("models") / "chatglm3-tiny"
    made = Installation(
        tmp_path_factory.mktemp("data"),
        LLMSITE_MODEL=str(chatglm_that_says(model, [(prompt, transcript_ids(chat_format))])),
    )
    made.start()
    yield made
    made.end(signal.SIGKILL)


def deltas(events: list[Event]) -> list[str]:
    *pieces, last = events
    assert last.name == "done"
    assert last.data["finish_reason"] == "stop"
    return [event.data["text"] for event in pieces if event.name == "message"]


def test_an_event_source_gets_exactly_the_24_deltas(greeter):
    with greeter.client() as client:
        events = stream(client, "GET", "/sendMessage", params={"prompt": GREETING})

    assert deltas(events) == TRANSCRIPT


def test_a_streamed_message_is_exactly_the_24_deltas_and_its_row_their_text(greeter):
    with greeter.client() as client:
        body = {"prompt": GREETING, "stream": True}
        events = stream(client, "POST", "/chat/new/message/", json=body)
        row = client.get(f"/api/responses/{events[-1].data['message_id']}/").json()

    assert deltas(events) == TRANSCRIPT
    assert row["text"] == "".join(TRANSCRIPT)
    assert len(row["token_ids"]) == 30


def test_the_official_client_gets_exactly_the_24_deltas(greeter):
    with openai.OpenAI(base_url=f"{greeter.address}/v1", api_key=greeter.key) as client:
        chunks = client.chat.completions.create(
            model="chatglm3-tiny", messages=[{"role": "user", "content": GREETING}], stream=True
        )
        said = [chunk.choices[0].delta.content for chunk in chunks]

    assert [text for text in said if text] == TRANSCRIPT
