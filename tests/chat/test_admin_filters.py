"""The log's filters: what each of them leaves, and what happens to what cannot be meant."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

import chat
from chat.admin.filters import SURFACES
from chat.models import ApiKey, Conversation
from tests.chat.rows import answered

LIST = "/admin/chat/response/"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def listed(client: Client, query: str, name: str = "response") -> list:
    """The rows that a filtered list shows."""
    answer = client.get(f"/admin/chat/{name}/?{query}")
    assert answer.status_code == 200, answer.content
    return list(answer.context["cl"].result_list)


def test_the_log_is_filtered(administrator, user):
    done = answered(user, "a", surface="message", model="m1")
    failed = answered(user, "b", surface="completion", model="m2", status="failed")
    imported = answered(user, "c", imported=True, finish_reason="length")

    assert listed(administrator, "status__exact=failed") == [failed]
    assert listed(administrator, "surface=message") == [done]
    assert listed(administrator, "model=m2") == [failed]
    assert listed(administrator, "imported__exact=1") == [imported]
    assert listed(administrator, "finish_reason=length") == [imported]


@pytest.mark.parametrize("name", ["response", "conversation", "apikey"])
def test_every_list_is_filtered_by_the_user(administrator, user, other, name):
    for somebody in (user, other):
        answered(somebody, "a")
        ApiKey.issue(user=somebody)

    [row] = listed(administrator, "user=ada", name)
    assert row.user == user
    assert listed(administrator, "user=ad", name) == []


def test_the_log_is_filtered_by_the_key(administrator, user):
    kept, other = ApiKey.issue(user=user, name="kept")[0], ApiKey.issue(user=user)[0]
    row = answered(user, "a", api_key=kept)
    answered(user, "b", api_key=other)
    answered(user, "c")

    assert listed(administrator, f"api_key__id__exact={kept.pk}") == [row]
    chosen = {"app_label": "chat", "model_name": "response", "field_name": "api_key", "term": "kep"}
    [choice] = administrator.get("/admin/autocomplete/", chosen).json()["results"]
    assert choice["id"] == str(kept.pk)


def test_who_may_see_keys_chooses_one(administrator, user):
    assert b"api_key__id__exact" in administrator.get(LIST).content


def test_who_may_not_see_keys_is_offered_none(user):
    user.is_staff = True
    user.save()
    user.user_permissions.add(Permission.objects.get(codename="view_response"))
    browser = Client()
    browser.force_login(user)

    assert b"api_key__id__exact" not in browser.get(LIST).content


def test_no_counts_are_offered_that_read_the_whole_log(administrator, user):
    answered(user, "a")
    page = administrator.get(f"{LIST}?_facets=True&status__exact=done")

    assert b"Show counts" not in page.content
    assert not page.context["cl"].add_facets


@pytest.mark.parametrize(("period", "seen"), [("today", 1), ("7", 2), ("30", 3), ("", 4), ("x", 4)])
def test_the_log_shows_a_period(administrator, user, period, seen):
    now = timezone.now()
    rows = [answered(user, "a", created_at=now - timedelta(days=days)) for days in (0, 5, 20, 400)]

    assert listed(administrator, f"period={period}") == rows[:seen]


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("created_at_from=2026-11-21", [1, 2, 3]),
        ("created_at_to=2026-11-21", [0, 1, 2]),
        ("created_at_from=2026-11-21&created_at_to=2026-11-21", [1, 2]),
        ("created_at_from=soon", [0, 1, 2, 3]),
    ],
)
def test_the_log_goes_from_one_day_to_another(administrator, user, query, seen):
    midnight = NOON.replace(hour=0)
    moments = [midnight + timedelta(seconds=s) for s in (-1, 0, 24 * 3600 - 1, 24 * 3600)]
    rows = [answered(user, "a", created_at=moment) for moment in moments]

    assert listed(administrator, query) == [rows[at] for at in reversed(seen)]


def test_a_day_is_one_of_the_servers_time_zone(administrator, user, settings):
    settings.TIME_ZONE = "Asia/Shanghai"
    row = answered(user, "a", created_at=NOON.replace(hour=17))  # one o'clock the next day there
    timezone.activate("Asia/Shanghai")
    try:
        assert listed(administrator, "created_at_from=2026-11-22") == [row]
        assert listed(administrator, "created_at_to=2026-11-21") == []
    finally:
        timezone.deactivate()


def test_keys_are_filtered_by_whether_they_let_anybody_in(administrator, user):
    usable, revoked = ApiKey.issue(user=user)[0], ApiKey.issue(user=user)[0]
    revoked.revoke()

    assert listed(administrator, "state=usable", "apikey") == [usable]
    assert listed(administrator, "state=revoked", "apikey") == [revoked]
    assert len(listed(administrator, "state=other", "apikey")) == 2


@pytest.mark.parametrize(
    "query", ["api_key__id__exact=x", "status__exact=x", "o=9", "p=0", "q=%00"]
)
def test_what_cannot_be_meant_is_no_failure(administrator, user, query):
    answered(user, "a")

    assert administrator.get(f"{LIST}?{query}", follow=True).status_code == 200


def test_a_conversation_is_found_by_its_id(administrator, user):
    rows = [Conversation.objects.create(user=user) for _ in range(2)]

    assert listed(administrator, f"q={rows[0].pk}", "conversation") == [rows[0]]
    assert listed(administrator, f"q={rows[1].pk.hex}", "conversation") == [rows[1]]


def test_every_surface_can_be_chosen():
    sources = Path(chat.__file__).parent.rglob("*.py")
    named = {
        name for path in sources for name in re.findall(r'surface="(\w+)"', path.read_text("utf-8"))
    }

    assert named == set(SURFACES)
