"""What is asked several times a second must not read the rows that are over."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from chat import recovery, remote
from chat.models import Conversation, Prompt, Response
from chat.record import WORKER

OVER = 3000


@pytest.fixture
def log(user) -> list[Response]:
    """Many responses that are over, one that runs here, one whose process is gone."""
    prompt = Prompt.objects.create(conversation=Conversation.objects.create(user=user))
    over = [Response(prompt=prompt, user=user, status="done", text="a") for _ in range(OVER)]
    Response.objects.bulk_create(over)
    ours = {"worker": WORKER, "lease_until": timezone.now() + timedelta(minutes=1)}
    gone = {"worker": "other:1", "lease_until": timezone.now() - timedelta(minutes=1)}
    rows = [
        Response.objects.create(prompt=prompt, user=user, status="streaming", **columns)
        for columns in ({**ours, "stop_requested": True}, gone)
    ]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return rows


def reads_everything(plan: str) -> bool:
    """Whether a plan of SQLite or PostgreSQL goes through the whole table or a whole index."""
    return "SCAN chat_response" in plan or "Seq Scan on chat_response" in plan


def test_a_stop_from_another_process_is_found_by_its_worker(log):
    assert not reads_everything(remote.stopped_elsewhere().explain())
    assert remote.stop_requests() == [log[0].pk]


def test_what_nobody_carries_is_found_by_its_lease(log):
    assert not reads_everything(recovery.abandoned([log[0].pk]).explain())
    assert list(recovery.abandoned([])) == [log[1]]


def test_such_a_plan_would_be_noticed(log):
    assert reads_everything(Response.objects.filter(stop_requested=True).explain())
