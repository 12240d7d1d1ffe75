"""`Idempotency-Key`: a request that is sent again joins the response that it started."""

from __future__ import annotations

import threading
from collections import Counter

import httpx
import pytest
from django.db import connections

from chat import idempotency
from chat.idempotency import Attempt
from chat.models import ApiKey, Conversation, Prompt, Response
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually, read_events, stream, text_of

MESSAGE = "/chat/new/message/"
COMPLETION = "/v1/chat/completions"
KEY = {"Idempotency-Key": "one"}
SAY = {"prompt": "Say it"}
HELLO = {"messages": [{"role": "user", "content": "Say it"}]}
BODIES = [(MESSAGE, SAY), (COMPLETION, HELLO), (COMPLETION, SAY)]


def message_id(answer: httpx.Response) -> str:
    """The response's id, on whatever surface."""
    body = answer.json()
    return body.get("message_id") or body["id"].removeprefix("chatcmpl-")


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_a_finished_response_is_given_again(api, engine, path, body):
    first, second = (api.post(path, json=body, headers=KEY) for _ in range(2))

    assert first.status_code == second.status_code == 200
    assert message_id(first) == message_id(second) == Response.objects.get().pk.hex
    assert first.json() | {"time": ""} == second.json() | {"time": ""}
    assert len(engine.prompts) == 1


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_a_running_response_is_joined(client_for, key, serve, path, body):
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(client_for(key).post(path, json=body, headers=KEY))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    threads[0].start()
    eventually(lambda: Response.objects.first())
    gate.admit()
    threads[1].start()
    gate.set()
    for thread in threads:
        thread.join(20)

    one, two = answers
    assert one.json() | {"time": ""} == two.json() | {"time": ""}
    assert "Hello, world" in one.text
    assert len(engine.prompts) == 1


def test_a_stream_is_joined_from_its_beginning(api, serve):
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    body = {**SAY, "stream": True}
    with api.stream("POST", MESSAGE, json=body, headers=KEY) as first:
        gate.admit(2)
        events = read_events(first.iter_lines())
        assert text_of([next(events), next(events)]) == "Hello, "
        with api.stream("POST", MESSAGE, json=body, headers=KEY) as second:
            gate.set()
            whole = list(read_events(second.iter_lines()))
        last = list(events)
    again = stream(api, "POST", MESSAGE, json=body, headers=KEY)

    assert text_of(whole) == text_of(again) == "Hello, world"
    assert whole[-1] == last[-1] == again[-1]
    assert len(engine.prompts) == Response.objects.count() == 1


def test_an_answer_that_was_joined_carries_the_same_history(api, engine):
    system = {"role": "system", "content": "Be brief."}
    first = api.post(MESSAGE, json={"prompt": "One", "history": [system]}, headers=KEY).json()
    again = api.post(MESSAGE, json={"prompt": "One", "history": [system]}, headers=KEY).json()
    assert first["history"] == again["history"]
    assert [turn["role"] for turn in again["history"]] == ["system", "user", "assistant"]

    inside = {"prompt": "Two", "conversation": first["conversation"]}
    second = {"Idempotency-Key": "two"}
    first, again = (api.post(MESSAGE, json=inside, headers=second).json() for _ in range(2))
    assert first["history"] == again["history"]
    assert [turn["content"] for turn in again["history"]] == [
        "One",
        "Hello, world",
        "Two",
        "Hello, world",
    ]
    assert len(engine.prompts) == 2


def test_a_prompt_inside_a_conversation_is_not_busy_with_itself(api, user, serve, gate):
    engine = serve(ScriptedEngine(gate=gate))
    row = Conversation.objects.create(user=user)
    path = f"/api/conversations/{row.pk}/prompts/"
    with api.stream("POST", path, json={**SAY, "stream": True}, headers=KEY):
        gate.set()
        again = stream(api, "POST", path, json={**SAY, "stream": True}, headers=KEY)

    assert text_of(again) == "Hello, world"
    assert len(engine.prompts) == 1


def test_one_more_response_to_a_prompt_is_made_once(api, engine):
    prompt = Response.objects.get(pk=api.post(MESSAGE, json=SAY).json()["message_id"]).prompt_id
    path = f"/api/prompts/{prompt}/responses/"
    first, again = (api.post(path, json={}, headers=KEY) for _ in range(2))

    assert (first.status_code, again.status_code) == (201, 201)
    assert message_id(first) == message_id(again)
    assert Response.objects.count() == len(engine.prompts) == 2


def test_a_query_is_a_body_too(api, engine):
    first = stream(api, "GET", "/sendMessage", params={"prompt": "One"}, headers=KEY)
    again = stream(api, "GET", "/sendMessage", params={"prompt": "One"}, headers=KEY)
    other = api.get("/sendMessage", params={"prompt": "Two"}, headers=KEY)

    assert first[-1] == again[-1]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(engine.prompts) == 1


def test_the_order_of_the_fields_and_the_slash_do_not_matter(api, engine):
    first = api.post(MESSAGE, content='{"prompt": "a", "seed": 7}', headers=JSON)
    again = api.post(MESSAGE.rstrip("/"), content='{ "seed": 7, "prompt": "a" }', headers=JSON)

    assert first.status_code == again.status_code == 200
    assert message_id(first) == message_id(again)
    assert len(engine.prompts) == 1


JSON = {**KEY, "Content-Type": "application/json"}


@pytest.mark.parametrize(
    "other", [{"prompt": "Say it!"}, {**SAY, "seed": 1}, {**SAY, "stream": True}], ids=str
)
def test_another_body_under_the_same_key_is_refused(api, engine, other):
    api.post(MESSAGE, json=SAY, headers=KEY)
    ours = api.post(MESSAGE, json=other, headers=KEY)
    openais = api.post(COMPLETION, json=HELLO, headers=KEY)

    assert ours.status_code == openais.status_code == 422
    assert ours.json()["code"] == "idempotency_key_reused"
    assert list(ours.json()["errors"]) == ["Idempotency-Key"]
    error = openais.json()["error"]
    assert (error["code"], error["param"]) == ("idempotency_key_reused", "Idempotency-Key")
    assert error["type"] == "invalid_request_error"
    assert Prompt.objects.count() == len(engine.prompts) == 1


def test_people_with_equal_keys_have_nothing_in_common(api, other_api, engine):
    mine = api.post(MESSAGE, json=SAY, headers=KEY).json()
    theirs = other_api.post(MESSAGE, json={"prompt": "Something else"}, headers=KEY)

    assert theirs.status_code == 200
    assert theirs.json()["message_id"] != mine["message_id"]
    assert len(engine.prompts) == 2


def test_all_keys_of_one_person_name_the_same(client_for, user, engine):
    for _ in range(2):
        client = client_for(ApiKey.issue(user=user)[1])
        assert client.post(MESSAGE, json=SAY, headers=KEY).status_code == 200

    assert len(engine.prompts) == 1


@pytest.mark.parametrize("tokens", [10, 20_000], ids=["short", "long"])
def test_a_hundred_at_once_start_one_generation(server, key, serve, tokens):
    """Long: all of them together would be far above what one caller may have at once."""
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hello", ", ", "world", gate=gate, context_length=32_000))
    say = {"prompt": "x" * tokens}
    seen: Counter[tuple[int, str]] = Counter()
    barrier = threading.Barrier(100)

    def ask() -> None:
        headers = {**KEY, "Authorization": f"Bearer {key}"}
        barrier.wait(30)
        answer = httpx.post(f"{server.address}{MESSAGE}", json=say, headers=headers, timeout=50)
        seen[answer.status_code, answer.json().get("message_id", answer.text)] += 1

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    eventually(lambda: Response.objects.first())
    gate.set()
    for thread in threads:
        thread.join(60)

    assert seen == {(200, Response.objects.get().pk.hex): 100}
    assert len(engine.prompts) == Prompt.objects.count() == Conversation.objects.count() == 1


def test_whoever_waits_for_its_turn_holds_no_connection(user, engine):
    attempt, inside = Attempt(user, key="one"), threading.Event()
    found: list[object] = []

    def second() -> None:
        Response.objects.exists()
        inside.set()
        with attempt.in_turn():
            found.append(connections["default"].connection)

    waiting = threading.Thread(target=second)
    with attempt.in_turn(), Attempt(user, key="two").in_turn():
        waiting.start()
        assert inside.wait(10)
        eventually(lambda: idempotency._key_locks._going[user.pk, "one"][1] == 2)
    waiting.join(10)

    assert found == [None]
    assert idempotency._key_locks._going == {}
