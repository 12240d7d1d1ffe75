"""As a stranger: start it, run the printed line, find both answers in the admin."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.web import read_events, text_of

pytestmark = pytest.mark.model

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."


def test_the_printed_line_answers_with_real_text(installation):
    line = re.search(r"^Try +(curl .*)$", installation.printed, re.MULTILINE)[1]

    answer = subprocess.run(
        f"{line} -s", shell=True, capture_output=True, text=True, check=True, timeout=60
    )

    assert json.loads(answer.stdout)["response"] == PARIS


def test_a_stream_says_the_same_in_pieces(installation):
    body = {"prompt": FRANCE, "stream": True}
    with (
        installation.client() as client,
        client.stream("POST", "/chat/new/message/", json=body) as stream,
    ):
        *pieces, done = read_events(stream.iter_lines())

    assert text_of(pieces) == PARIS
    assert len(pieces) > 3
    assert done.name == "done"
    assert done.data["usage"]["completion_tokens"] == 8


def test_both_are_in_the_admin(installation):
    with httpx.Client(base_url=installation.address, follow_redirects=True) as browser:
        login = browser.get("/admin/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', login.text)[1]
        browser.post(
            "/admin/login/?next=/admin/chat/response/",
            data={
                "username": "admin",
                "password": installation.password,
                "csrfmiddlewaretoken": token,
            },
        )
        log = browser.get("/admin/chat/response/?q=capital")

    assert log.status_code == 200
    assert log.text.count(PARIS) >= 2


def test_twenty_callers_at_once_get_what_each_would_get_alone(installation):
    prompts = [f"What is {n} plus {n}?" for n in range(20)]

    def ask(prompt: str) -> str:
        with installation.client() as client:
            body = {"prompt": prompt, "max_tokens": 8, "temperature": 0}
            return client.post("/chat/new/message/", json=body).json()["response"]

    alone = [ask(prompt) for prompt in prompts]
    with ThreadPoolExecutor(20) as callers:
        together = list(callers.map(ask, prompts))

    assert together == alone
    assert len(set(alone)) > 10


def test_the_official_client_works_unmodified(installation):
    client = openai.OpenAI(base_url=f"{installation.address}/v1", api_key=installation.key)
    model = client.models.list().data[0].id
    messages = [{"role": "user", "content": FRANCE}]

    whole = client.chat.completions.create(model=model, messages=messages)
    stream = client.chat.completions.create(
        model=model, messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)

    assert whole.choices[0].message.content == PARIS
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == PARIS
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens


def test_the_same_seed_gives_the_same_text_among_neighbours(installation):
    body = {"prompt": "Tell a story.", "temperature": 1, "seed": 11, "max_tokens": 24}

    def ask(seed: int) -> str:
        with installation.client() as client:
            answer = client.post("/chat/new/message/", json={**body, "seed": seed})
            return answer.json()["response"]

    alone = ask(11)
    with ThreadPoolExecutor(6) as callers:
        together = list(callers.map(ask, [11, 1, 2, 11, 3, 4]))

    assert together[0] == together[3] == alone
    assert len(set(together)) == 5


KILLERS = [
    {"temperature": float("nan")},
    {"temperature": 1e-45},
    {"temperature": -1},
    {"top_p": 0},
    {"top_k": 60_000},
    {"max_tokens": 8192},
    {"max_tokens": 0},
    {"prompt": "word " * 9000},
    {"prompt": "<|im_start|>" * 50, "max_tokens": 2},
    {"seed": 1 << 64},
]


def test_bad_requests_harm_nobody_else(installation):
    texts: list[str] = []

    def neighbour() -> None:
        body = {"prompt": "Count from one to thirty.", "stream": True, "max_tokens": 60}
        with (
            installation.client() as client,
            client.stream("POST", "/chat/new/message/", json=body) as stream,
        ):
            *pieces, last = read_events(stream.iter_lines())
        texts.append(last.name)
        texts.append(text_of(pieces))

    beside = threading.Thread(target=neighbour)
    beside.start()
    with installation.client() as client:
        statuses = [
            client.post(
                "/chat/new/message/",
                content=json.dumps({"prompt": "Hi", "max_tokens": 2, **killer}),
                headers={"Content-Type": "application/json"},
            ).status_code
            for killer in KILLERS
        ]
    beside.join(60)

    assert statuses == [400, 200, 400, 400, 400, 400, 400, 400, 200, 400]
    assert texts[0] == "done"
    assert texts[1]
    assert installation.wait_for("readyz").json()["status"] == "ready"


def test_a_question_from_the_terminal_is_stored_like_any_other(installation):
    asked = installation.manage("ask", FRANCE)

    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip() == PARIS
    key = installation.manage("createkey", "terminal", "--name", "look").stdout.strip()
    log = httpx.get(
        f"{installation.address}/chat/get/messages/",
        headers={"Authorization": f"Bearer {key}"},
    ).json()
    assert [line["response"] for line in log["results"]] == [PARIS]
