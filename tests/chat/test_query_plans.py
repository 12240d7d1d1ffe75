"""What is asked several times a second must not read the rows that are over."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from chat.lifecycle import recovery, remote
from chat.lifecycle.record import LEASE, WORKER
from chat.models import Conversation, Prompt, Response
from tests.chat.rows import ask

OVER = 3000


@pytest.fixture
def log(user) -> list[Response]:
    """Many responses that are over, one that runs here, two whose process is gone.

    The second wrote its lease before the clock was set back.
    """
    prompt = Prompt.objects.create(conversation=Conversation.objects.create(user=user))
    over = [Response(prompt=prompt, user=user, status="done", text="a") for _ in range(OVER)]
    Response.objects.bulk_create(over)
    ours = {"worker": WORKER, "lease_until": timezone.now() + LEASE}
    gone = {"worker": "other:1", "lease_until": timezone.now() - timedelta(minutes=1)}
    odd = {**gone, "lease_until": timezone.now() + timedelta(hours=1)}
    rows = [
        Response.objects.create(prompt=prompt, user=user, status="streaming", **columns)
        for columns in ({**ours, "stop_requested": True}, gone, odd)
    ]
    analyze()
    return rows


def analyze() -> None:
    """Let the database know what there is."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def plan(sql: str) -> str:
    """What the database would do."""
    how = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN "
    with connection.cursor() as cursor:
        cursor.execute(how + sql)
        return "\n".join(str(line[-1]) for line in cursor.fetchall())


def reads_everything(plan: str) -> bool:
    """Whether a plan of SQLite or PostgreSQL goes through the whole table or a whole index."""
    return "SCAN chat_response" in plan or "Seq Scan on chat_response" in plan


def test_a_stop_from_another_process_is_found_by_its_worker(log):
    assert not reads_everything(remote.stopped_elsewhere().explain())
    assert remote.stop_requests() == [log[0].pk]


def test_what_nobody_carries_is_found_by_its_lease(log):
    assert not reads_everything(recovery.abandoned([log[0].pk]).explain())
    assert list(recovery.abandoned([])) == log[1:]


def test_the_newest_in_a_conversation_is_found_through_its_prompts(user):
    conversations = [Conversation(user=user) for _ in range(OVER)]
    prompts = [Prompt(conversation=conversation) for conversation in conversations]
    rows = [Response(prompt=prompt, user=user, status="done") for prompt in prompts]
    for model, made in ((Conversation, conversations), (Prompt, prompts), (Response, rows)):
        model.objects.bulk_create(made)
    analyze()
    with CaptureQueriesContext(connection) as queries:
        assert conversations[7].next_moment() > rows[7].created_at
    [query] = queries.captured_queries

    assert not reads_everything(plan(query["sql"]))


def test_the_first_prompt_of_a_conversation_looks_for_nothing_newer(user, engine):
    with CaptureQueriesContext(connection) as queries:
        ask(user)
    assert not any("MAX(" in query["sql"] for query in queries.captured_queries)


def test_such_a_plan_would_be_noticed(log):
    assert reads_everything(Response.objects.filter(stop_requested=True).explain())
