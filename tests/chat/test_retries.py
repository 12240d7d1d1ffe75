"""The retries of OpenAI's clients, which name nothing: equal requests that count themselves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import timedelta

import httpx
import openai
import pytest
from django.utils import timezone

from chat.models import ApiKey, Prompt, Response
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import ServerThread, eventually

URL = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Say it"}]
BODY = {"messages": HELLO}
AGAIN = {"X-Stainless-Retry-Count": "1"}


def test_a_retry_gets_the_response_of_the_first_try(api, engine):
    first = api.post(URL, json=BODY, headers={"X-Stainless-Retry-Count": "0"})
    second = api.post(URL, json=BODY, headers=AGAIN)

    assert first.json() == second.json()
    assert len(engine.prompts) == Response.objects.count() == 1


@pytest.mark.parametrize("count", ["0", "000", "", "x", "-1", "1.5", None])
def test_what_is_no_retry_is_a_question_of_its_own(api, engine, count):
    api.post(URL, json=BODY)
    headers = {} if count is None else {"X-Stainless-Retry-Count": count}
    assert api.post(URL, json=BODY, headers=headers).status_code == 200

    assert len(engine.prompts) == 2


def test_a_count_of_any_length_is_a_retry(api, engine):
    api.post(URL, json=BODY)
    assert api.post(URL, json=BODY, headers={"X-Stainless-Retry-Count": "9" * 5000}).is_success

    assert len(engine.prompts) == 1


def test_a_retry_of_something_else_is_answered(api, engine):
    api.post(URL, json=BODY)
    api.post(URL, json={**BODY, "seed": 1}, headers=AGAIN)
    api.post("/chat/new/message/", json=BODY | {"prompt": "a"}, headers=AGAIN)

    assert len(engine.prompts) == 2


def test_a_retry_of_another_query_is_answered(api, engine):
    api.get("/sendMessage", params={"prompt": "One"})
    api.get("/sendMessage", params={"prompt": "Two"}, headers=AGAIN)
    api.get("/sendMessage", params={"prompt": "Two"}, headers=AGAIN)

    assert Prompt.objects.count() == 2


def test_another_key_of_the_same_person_joins_nothing(client_for, api, user, engine):
    api.post(URL, json=BODY)
    client_for(ApiKey.issue(user=user)[1]).post(URL, json=BODY, headers=AGAIN)

    assert len(engine.prompts) == 2


def test_somebody_else_joins_nothing(api, other_api, engine):
    api.post(URL, json=BODY)
    other_api.post(URL, json=BODY, headers=AGAIN)

    assert len(engine.prompts) == 2


@pytest.mark.parametrize(
    ("age", "generations"), [(timedelta(minutes=9), 1), (timedelta(minutes=10), 2)]
)
def test_after_ten_minutes_it_is_no_retry_any_more(api, engine, age, generations):
    api.post(URL, json=BODY)
    Response.objects.update(created_at=timezone.now() - age)
    api.post(URL, json=BODY, headers=AGAIN)

    assert len(engine.prompts) == generations


@pytest.mark.parametrize("status", ["stopped", "failed", "interrupted"])
def test_what_came_to_nothing_is_not_joined(api, engine, status):
    api.post(URL, json=BODY)
    Response.objects.update(status=status)
    answer = api.post(URL, json=BODY, headers=AGAIN)

    assert answer.json()["choices"][0]["message"]["content"] == "Hello, world"
    assert len(engine.prompts) == 2


def test_of_several_the_newest_is_joined(api, engine):
    api.post(URL, json=BODY)
    newest = api.post(URL, json=BODY).json()

    assert api.post(URL, json=BODY, headers=AGAIN).json()["id"] == newest["id"]


def test_a_key_decides_before_the_count(api, engine):
    api.post(URL, json=BODY)
    api.post(URL, json=BODY, headers={**AGAIN, "Idempotency-Key": "one"})

    assert len(engine.prompts) == 2


class Cutter:
    """A TCP proxy whose first connection dies for its client; the server does not hear of it."""

    def __init__(self, server: ServerThread) -> None:
        host, port = server.address.removeprefix("http://").split(":")
        self._upstream = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        for one in self._open:
            one.close()

    def _serve(self) -> None:
        first = True
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(self._upstream)
            self._open += [client, upstream]
            threading.Thread(target=self._pass, args=(client, upstream), daemon=True).start()
            if first:
                self.cut.wait(10)
                client.shutdown(socket.SHUT_RDWR)
                first = False
            else:
                threading.Thread(target=self._pass, args=(upstream, client), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            return


@pytest.fixture
def cutter(server) -> Iterator[Cutter]:
    """A way to the server that breaks once."""
    made = Cutter(server)
    yield made
    made.close()


@pytest.mark.parametrize("streamed", [False, True])
def test_the_official_clients_own_retry_joins(cutter, key, serve, streamed):
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hello", ", ", "world", gate=gate))

    def break_off() -> None:
        eventually(lambda: engine.prompts)
        cutter.cut.set()
        gate.set()

    breaking = threading.Thread(target=break_off)
    breaking.start()
    with openai.OpenAI(base_url=f"{cutter.address}/v1", api_key=key, max_retries=2) as client:
        answer = client.chat.completions.create(model="demo", messages=HELLO, stream=streamed)
        if streamed:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
        else:
            text = answer.choices[0].message.content
    breaking.join(10)

    assert text == "Hello, world"
    assert len(engine.prompts) == Response.objects.count() == 1


def test_a_client_that_was_cut_off_with_the_servers_knowledge_asks_anew(server, key, serve, gate):
    """Its first try was stopped with it: half an answer would look like a whole one."""
    engine = serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    options = {"base_url": f"{server.address}/v1", "api_key": key}
    with (
        openai.OpenAI(**options, max_retries=0, timeout=2) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.chat.completions.create(model="demo", messages=HELLO)
    eventually(lambda: Response.objects.filter(status="stopped").exists())
    gate.set()
    headers = {"Authorization": f"Bearer {key}", **AGAIN}
    answer = httpx.post(f"{server.address}{URL}", json=BODY | {"model": "demo"}, headers=headers)

    assert answer.json()["choices"][0]["message"]["content"] == "Hello, world"
    assert len(engine.prompts) == 2
