"""What the real model answered, sampled and in company, comes again in another process."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conftest import Installation

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]

PROMPTS = ["Tell me of a fox.", "Count to ten.", "Name three towns.", "What is a wheel?"]


@pytest.fixture(scope="module")
def answered(installation: Installation) -> Installation:
    """An installation whose log has a few sampled conversations of two turns."""

    def talk(prompt: str) -> None:
        with installation.client() as client:
            body = {"prompt": prompt, "max_tokens": 12, "temperature": 1.0, "top_p": 0.9}
            first = client.post("/chat/new/message/", json=body).json()
            again = {**body, "prompt": "Go on.", "conversation": first["conversation"]}
            assert client.post("/chat/new/message/", json=again).status_code == 200

    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        list(pool.map(talk, PROMPTS))
    return installation


def test_every_answer_is_the_same(answered):
    done = answered.manage("replay", timeout=200)

    assert done.stdout.splitlines()[-1] == "8 same, 0 differs, 0 impossible.", done.stderr
    assert done.returncode == 0


def test_the_installations_persona_may_be_another_now(answered):
    answered.environment["LLMSITE_SYSTEM"] = "You are a pirate."
    try:
        done = answered.manage("replay", "--limit", "2", timeout=200)
    finally:
        del answered.environment["LLMSITE_SYSTEM"]

    assert done.stdout.splitlines()[-1] == "2 same, 0 differs, 0 impossible.", done.stderr


def test_the_log_can_be_exported_while_it_is_served(answered):
    done = answered.manage("export", "--format", "messages", "--paths")
    lines = [json.loads(line) for line in done.stdout.splitlines()]

    assert len(lines) == len(PROMPTS)
    for line in lines:
        assert [said["role"] for said in line["messages"][-4:]] == ["user", "assistant"] * 2
    with answered.client() as client:
        assert len(client.get("/api/export").text.splitlines()) == 2 * len(PROMPTS)
