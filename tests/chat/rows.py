"""Rows that the tests here begin with, and prompts under way."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from chat import acceptance
from chat.conversations.exchanges import root_fingerprint
from chat.idempotency import Attempt
from chat.lifecycle.record import LEASE
from chat.lifecycle.recovery import Continuation
from chat.models import Conversation, Prompt, Response
from chat.questions import Accepted, Question
from modelhost.types import Role, Turn
from tests.fakes import ScriptFormat

ELSEWHERE = "another-host:1"  # the name of a process that is not this one


def ask(user: Any, text: str = "Hi", **options: Any) -> Accepted:
    """A prompt under way."""
    return acceptance.accept(Question(content=text, surface="test", **options), Attempt(user))


def row_of(accepted: Accepted) -> Response:
    """Its row as the database has it."""
    return Response.objects.get(pk=accepted.response_id)


def answered(user: Any, text: str, **columns: Any) -> Response:
    """A response that is done."""
    conversation = columns.pop("conversation", None) or Conversation.objects.create(user=user)
    follows = columns.pop("follows", None)
    said = columns.pop("prompt", "Hi")
    prompt = Prompt.objects.create(conversation=conversation, content=said, follows=follows)
    values = {"status": "done", "finish_reason": "stop", "text": text, **columns}
    return Response.objects.create(prompt=prompt, user=user, **values)


def left_behind(user: Any, text: str = "", **columns: Any) -> Response:
    """The row of a process that died while it answered, as the recorder had left it.

    prompt: what was asked. Its lease is over.
    """
    said = columns.get("prompt", "Hi")
    ids = ScriptFormat().encode([Turn(Role.USER, said)])
    under_way = {
        "status": "streaming" if text else "queued",
        "finish_reason": "",
        "token_ids": [*map(ord, text)],
        "model": "scripted-model",
        "revision": "r1",
        "seed": 7,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_tokens": 512,
        "prompt_tokens": len(ids),
        "worker": ELSEWHERE,
        "lease_until": timezone.now() - timedelta(seconds=1),
        "continuation": Continuation(ids, root_fingerprint("")).as_json(),
    }
    return answered(user, text, **{**under_way, **columns})


def clock_set_back() -> None:
    """By an hour, which makes all that there is an hour newer than it was."""
    for model in (Conversation, Prompt, Response):
        model.objects.update(created_at=F("created_at") + timedelta(hours=1))


def carried_elsewhere(user: Any, text: str = "", **columns: Any) -> Response:
    """A row that another process is answering; its lease holds for as long as any could."""
    lease = timezone.now() + 2 * LEASE
    return left_behind(user, text, **{"lease_until": lease, **columns})
