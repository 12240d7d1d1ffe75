"""Rows that no process can go on with: each comes to an end, and harms no other."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.utils import timezone

from chat.lifecycle import recovery
from chat.lifecycle.supervisor import supervisor
from chat.models import Prompt, Response
from modelhost.engine import Engine
from tests.web import eventually

SAMPLED = {"prompt": "the cat", "max_tokens": 20, "seed": 7, "temperature": 1.0}
PROMPT = {"prompt_ids": [5, 6, 7], "history": ""}
DAMAGE: list[dict[str, Any]] = [
    {"continuation": None},
    {"continuation": 5},
    {"continuation": [1, 2]},
    {"continuation": {"nonsense": 1}},
    *({"continuation": {**PROMPT, "prompt_ids": ids}} for ids in ([], None, ["x"], [10**9], [-1])),
    {"continuation": {**PROMPT, "prompt_ids": [5] * 600}},
    {"continuation": {**PROMPT, "history": None}},
    *({"token_ids": ids} for ids in ([10**9], [-1], ["x"], [None], {"a": 1}, "no", [5] * 600)),
    *({"tools": tools} for tools in ([5], ["x"], {"a": 1}, [{"no": "name"}])),
    *({"stop": stops} for stops in ([5], [None], {"a": 1}, [""])),
    *({"max_tokens": value} for value in (0, None, 10**6)),
    *({"top_k": value} for value in (10**6, None)),
    *({"temperature": value} for value in (-1.0, 1e-45, None)),
    *({"top_p": value} for value in (0.0, -1.0, 7.0)),
    {"seed": None},
    {"model": "another"},
    {"text": "what the ids do not say"},
    {"attempts": 30000},
    *({"tool_calls": calls} for calls in (5, [5], [{"no": "name"}])),
    *({"earlier": turns} for turns in (5, [5], [{"no": "role"}])),  # of its prompt
]


def abandoned(row: Response, **damage: Any) -> Response:
    """A copy of a finished row as its process could have left it, then damaged."""
    row.pk, row._state.adding = None, True
    fresh = Response(
        prompt=row.prompt,
        user=row.user,
        model=row.model,
        revision=row.revision,
        seed=row.seed,
        temperature=row.temperature,
        top_p=row.top_p,
        top_k=row.top_k,
        max_tokens=row.max_tokens,
        prompt_tokens=row.prompt_tokens,
        continuation=PROMPT,
        status=Response.Status.STREAMING,
        worker="gone",
        lease_until=timezone.now() - timedelta(seconds=1),
    )
    if "earlier" in damage:
        fresh.prompt = Prompt(
            conversation=row.prompt.conversation, content="odd", earlier=damage["earlier"]
        )
        fresh.prompt.save()
    for name, value in damage.items():
        setattr(fresh, name, value)
    fresh.save(force_insert=True)
    return fresh


def test_a_damaged_row_ends_and_the_others_go_on(
    api: httpx.Client, real: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LEASE", timedelta(seconds=0.3))
    api.post("/chat/new/message/", json=SAMPLED)
    row = Response.objects.select_related("prompt", "user").get()
    for damage in DAMAGE:
        abandoned(row, **damage)
    healthy = abandoned(row)

    supervisor.start(recover=True)

    eventually(lambda: not Response.objects.active().filter(pk=healthy.pk).exists(), seconds=20)
    eventually(lambda: not Response.objects.active().exists(), seconds=20)
    healthy.refresh_from_db()
    assert healthy.status == "done"
    assert (real.restarts, real.active) == (0, 0)
    assert not Response.objects.filter(status="interrupted", error="").exists()
