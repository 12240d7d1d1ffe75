"""The log opens as fast at a million rows as at a hundred: nothing in it reads them all."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.admin.sites import site
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from chat.admin import pagination
from chat.models import ApiKey, Conversation, Prompt, Response, Verdict

ROWS = 3000
LISTS = {
    "response": [
        "",
        "p=2",
        "o=1",
        "user=ada",
        "period=7",
        "created_at_from=2026-01-01&created_at_to=2026-12-31",
        "period=7&q=nowhere",
        "api_key__id__exact={key}",
        "q={conversation}",
        "conversation={conversation}",
        "verdict=good",
        "verdict=bad",
        "verdict=disputed",
        "verdict=none",
    ],
    "conversation": ["", "p=2", "user=ada", "period=7", "q={conversation}"],
    "apikey": ["", "user=ada", "state=usable"],
}
FULL_SORT = re.compile(r"TEMP B-TREE FOR (ORDER BY|DISTINCT)|(?<!Incremental )Sort  \(")
LOG = "chat_(response|conversation|prompt)"
FULL_READ = re.compile(f"SCAN {LOG}|Seq Scan on {LOG}")
SOME_READ = re.compile(f"on {LOG}")


@pytest.fixture
def log(user) -> dict[str, object]:
    """Many rows, most of them long ago; what the queries above are filled in with."""
    key, _ = ApiKey.issue(user=user)
    now = timezone.now()
    moments = [now - timedelta(hours=at) for at in range(ROWS)]
    conversations = [Conversation(user=user, created_at=at) for at in moments]
    prompts = [Prompt(conversation=row, created_at=row.created_at) for row in conversations]
    responses = [
        Response(
            prompt=row, user=user, status="done", text="a", api_key=key, created_at=row.created_at
        )
        for row in prompts
    ]
    Conversation.objects.bulk_create(conversations)
    Prompt.objects.bulk_create(prompts)
    Response.objects.bulk_create(responses)
    for at, row in enumerate(responses[:20]):
        Verdict.objects.create(response=row, reviewer=user, value=("good", "bad")[at % 2])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return {"conversation": conversations[0].pk, "key": key.pk}


def reads_everything(sql: str) -> bool:
    """Whether a query goes through all rows: unlimited, or limited after a sort of them all."""
    explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # rightly reads a few thousand rows as they lie
            cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"{explain} {sql.replace('%', '%%')}", ())
        plan = "\n".join(str(line) for line in cursor.fetchall())
    whole_index = SOME_READ.search(plan) and "Index Cond" not in plan  # PostgreSQL
    if not FULL_READ.search(plan) and not whole_index:
        return False
    return " LIMIT " not in sql or FULL_SORT.search(plan) is not None


@pytest.mark.parametrize("name", LISTS)
def test_no_list_reads_everything(administrator, log, name):
    for query in LISTS[name]:
        with CaptureQueriesContext(connection) as queries:
            answer = administrator.get(f"/admin/chat/{name}/?{query.format(**log)}")

        assert answer.status_code == 200
        read = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
        assert len(read) > 2
        assert [sql for sql in read if reads_everything(sql)] == [], query


def test_such_a_query_would_be_noticed(log):
    for sql in (
        'SELECT DISTINCT "model" FROM "chat_response"',
        'SELECT COUNT(*) FROM "chat_response"',
        'SELECT "id" FROM "chat_response" ORDER BY "text" LIMIT 50',
    ):
        assert reads_everything(sql), sql


def test_rows_are_counted_up_to_a_bound(administrator, log, monkeypatch):
    monkeypatch.setattr(pagination, "COUNTED", 1000)
    page = administrator.get("/admin/chat/response/")

    assert page.context["cl"].paginator.num_pages == 20
    assert "1,000+" in page.content.decode()


def test_what_is_counted_to_its_end_has_no_plus(administrator, log):
    page = administrator.get("/admin/chat/response/").content.decode()

    assert re.search(rf"\b{ROWS}\s+responses", page)
    assert f"{ROWS}+" not in page


@pytest.mark.parametrize("model", [Response, Conversation])
def test_only_what_has_an_index_is_sorted_by(model):
    assert site.get_model_admin(model).sortable_by in [("asked_at",), ("created_at",)]
