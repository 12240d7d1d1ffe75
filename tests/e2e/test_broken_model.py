"""A server whose ChatGLM is not whole: it stays up and says which file, to whoever asks."""

from __future__ import annotations

import shutil
import signal

import pytest

from tests.e2e.conftest import Installation
from tests.modelhost.broken import BROKEN
from tests.modelhost.forced import SHARED, TINY
from tests.web import eventually

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        not SHARED.is_dir(), reason="the reference checkpoint is not beside the repository"
    ),
]

SENTENCES = {
    "truncated shard": "model-00001-of-00003.safetensors is damaged or cut short.",
    "no tokenizer": "tokenizer.model is missing.",
}


@pytest.fixture(params=SENTENCES)
def failed(request, tmp_path):
    """A server on such a folder, when it has given up; with what it must say."""
    folder = tmp_path / "chatglm3-broken"
    shutil.copytree(TINY, folder, copy_function=shutil.copyfile)
    BROKEN[request.param][0](folder)
    made = Installation(tmp_path / "data", LLMSITE_MODEL=str(folder))
    made.start(ready=False)
    yield made, SENTENCES[request.param]
    if made.process is not None:
        made.end(signal.SIGKILL)


def test_ready_and_asking_are_503_with_that_sentence_and_the_log_has_no_traceback(failed):
    server, sentence = failed
    with server.client() as client:

        def given_up():
            answer = client.get("/readyz")
            return answer if answer.json()["status"] != "loading" else None

        ready = eventually(given_up, seconds=60)
        asked = client.post("/chat/new/message/", json={"prompt": "Hi"})
        offered = client.post(
            "/v1/chat/completions",
            json={"model": "chatglm3-broken", "messages": [{"role": "user", "content": "Hi"}]},
        )
    server.end(signal.SIGTERM)

    assert ready.json()["status"] == "failed"
    for answer in (ready, asked, offered):
        assert answer.status_code == 503
        assert sentence in answer.text
        assert "Traceback" not in answer.text
    assert asked.json()["code"] == offered.json()["error"]["code"] == "model_failed"
    assert sentence in server.printed
    assert "Traceback" not in server.printed
