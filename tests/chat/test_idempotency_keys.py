"""Which keys bind a request to its response, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from chat import acceptance, idempotency, responses
from chat.idempotency import Attempt, KeyReused
from chat.lifecycle import upkeep
from chat.lifecycle.live import LiveResponse
from chat.lifecycle.record import Record
from chat.limits.admission import admission
from chat.models import Conversation, IdempotencyKey, Prompt, Response
from chat.questions import Accepted, Question
from tests.chat.meanwhile import Rendering
from tests.chat.refusals import named
from tests.chat.rows import answered, carried_elsewhere
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually

MESSAGE = "/chat/new/message/"
COMPLETION = "/v1/chat/completions"
KEY = {"Idempotency-Key": "one"}
SAY = {"prompt": "Say it"}


@pytest.mark.parametrize("status", ["failed", "stopped", "interrupted"])
def test_a_key_whose_response_came_to_nothing_is_free(api, engine, status):
    first = api.post(MESSAGE, json=SAY, headers=KEY).json()
    Response.objects.update(status=status)
    second = api.post(MESSAGE, json=SAY, headers=KEY).json()
    third = api.post(MESSAGE, json=SAY, headers=KEY).json()

    assert first["message_id"] != second["message_id"] == third["message_id"]
    assert len(engine.prompts) == 2


def test_an_answer_that_died_can_be_asked_for_again_with_its_key(api, serve):
    serve(ScriptedEngine("Hel", fail_at=0))
    assert api.post(MESSAGE, json=SAY, headers=KEY).status_code == 503
    serve(ScriptedEngine("Hello"))

    assert api.post(MESSAGE, json=SAY, headers=KEY).json()["response"] == "Hello"


def test_what_is_removed_while_its_retry_comes_is_asked_anew(api, engine, monkeypatch):
    first = api.post(MESSAGE, json=SAY, headers=KEY).json()
    join = responses.join

    def join_what_is_gone(response: Response, question: Question) -> Accepted:
        Conversation.objects.filter(pk=first["conversation"]).delete()
        return join(response, question)

    monkeypatch.setattr(responses, "join", join_what_is_gone)
    second = api.post(MESSAGE, json=SAY, headers=KEY)

    assert second.status_code == 200
    assert second.json()["response"] == first["response"]
    assert second.json()["conversation"] != first["conversation"]


def test_a_key_is_kept_for_a_day(api, engine):
    api.post(MESSAGE, json=SAY, headers=KEY)
    for age, generations in ((timedelta(hours=23, minutes=59), 1), (timedelta(hours=24), 2)):
        IdempotencyKey.objects.update(created_at=timezone.now() - age)
        for _ in range(2):
            assert api.post(MESSAGE, json=SAY, headers=KEY).status_code == 200
            assert len(engine.prompts) == generations

    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
    assert api.post(MESSAGE, json={"prompt": "Something else"}, headers=KEY).status_code == 200


def test_old_keys_are_deleted_and_their_responses_stay(api, engine, monkeypatch):
    for name in ("old", "new"):
        api.post(MESSAGE, json=SAY, headers={"Idempotency-Key": name})
    old = IdempotencyKey.objects.filter(key="old")
    old.update(created_at=timezone.now() - timedelta(hours=25))
    monkeypatch.setattr(idempotency._Forgetting, "next_at", 0.0)
    idempotency.forget_old()

    assert [row.key for row in IdempotencyKey.objects.all()] == ["new"]
    assert Response.objects.count() == 2
    old.update()
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
    idempotency.forget_old()
    assert IdempotencyKey.objects.count() == 1, "it is not looked for each time"


@pytest.mark.parametrize("name", ["", "x" * 256, "a\tb", "a\x7fb"], ids=repr)
@pytest.mark.parametrize("path", [MESSAGE, COMPLETION])
def test_a_malformed_key_is_refused_by_name(api, engine, name, path):
    answer = api.post(path, json=SAY, headers={"Idempotency-Key": name.encode("latin-1")})

    assert answer.status_code == 400
    assert named(answer) == ("invalid_request", "Idempotency-Key")
    assert not Prompt.objects.exists()


@pytest.mark.parametrize(
    "name", ["x", "x" * 255, "é", '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "a b"]
)
def test_any_other_text_is_a_key(api, engine, name):
    for _ in range(2):
        api.post(MESSAGE, json=SAY, headers={"Idempotency-Key": name.encode("latin-1")})

    assert len(engine.prompts) == 1


def test_what_was_refused_binds_no_key(api, serve):
    serve(ScriptedEngine(max_requests=0))
    assert api.post(MESSAGE, json=SAY, headers=KEY).status_code == 429
    assert not IdempotencyKey.objects.exists()
    serve(ScriptedEngine("Hello"))

    assert api.post(MESSAGE, json=SAY, headers=KEY).status_code == 200


def key_of_theirs(user: Any, digest: str, **columns: Any) -> None:
    """Another process answers a request with the same key."""
    theirs = answered(user, "Theirs", **columns)
    IdempotencyKey.objects.create(user=user, key="one", digest=digest, response=theirs)


def test_whoever_finds_its_key_taken_by_another_process_joins_what_that_made(user, serve):
    before = admission.total
    engine = serve(Rendering(lambda: key_of_theirs(user, "ours")))
    attempt = Attempt(user, digest="ours", key="one")
    accepted = acceptance.accept(Question(content="Hi", surface="test"), attempt)

    assert (engine.rendered, accepted.live.text) == (1, "Theirs")
    assert Prompt.objects.count() == Response.objects.count() == 1
    assert engine.prompts == []
    assert admission.total == before


@pytest.mark.parametrize("status", ["done", "failed"])
def test_another_process_may_have_taken_the_key_for_something_else(user, serve, status):
    before = admission.total
    engine = serve(Rendering(lambda: key_of_theirs(user, "theirs", status=status)))
    with pytest.raises(KeyReused):
        acceptance.accept(
            Question(content="Hi", surface="test"), Attempt(user, digest="ours", key="one")
        )

    assert Prompt.objects.count() == Response.objects.count() == 1
    assert engine.prompts == []
    assert admission.total == before


def test_what_is_being_stopped_is_not_joined(user, serve, monkeypatch):
    """Half an answer would look like a whole one. Its row says so only when that is written."""
    gate, written = Turnstile(), threading.Event()
    engine, commit = serve(ScriptedEngine("Hello", ", world", gate=gate)), upkeep.commit
    attempt, question = Attempt(user, key="one"), Question(content="Hi", surface="test")
    first = acceptance.accept(question, attempt)
    gate.admit()
    eventually(lambda: Response.objects.filter(text="Hello").exists())

    def late(records: Sequence[Record]) -> Exception | None:
        assert written.wait(10)
        return commit(records)

    def settled(live: LiveResponse) -> bool:
        written.set()
        return live.wait(10)

    monkeypatch.setattr(upkeep, "commit", late)
    monkeypatch.setattr(responses, "settled", settled)
    responses.stop(Response.objects.get())
    gate.set()
    second = acceptance.accept(question, attempt)

    assert second.live.wait(10)
    assert (first.live.text, second.live.text) == ("Hello", "Hello, world")
    assert len(engine.prompts) == 2


def test_nor_what_is_being_stopped_by_another_process(user, engine, monkeypatch):
    theirs = carried_elsewhere(user, "Hel", stop_requested=True)
    IdempotencyKey.objects.create(user=user, key="one", response=theirs)

    def settled(live: LiveResponse) -> bool:
        """What the other process does when it sees the request."""
        return bool(Response.objects.filter(pk=theirs.pk).update(status="stopped"))

    monkeypatch.setattr(responses, "settled", settled)
    accepted = acceptance.accept(Question(content="Hi", surface="test"), Attempt(user, key="one"))

    assert accepted.live.wait(10)
    assert accepted.live.text == "Hello, world"
