"""What the admin says: nothing that is not so, and nothing that only a program would read."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from chat.models import ApiKey, Response
from tests.chat.rows import answered

LIST = "/admin/chat/response/"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def page_of(administrator, row: Response) -> str:
    return administrator.get(f"{LIST}{row.pk}/change/").content.decode()


@pytest.mark.parametrize("name", ["response", "conversation", "apikey"])
def test_an_empty_list_offers_to_create_nothing(administrator, name):
    page = administrator.get(f"/admin/chat/{name}/").content.decode()

    assert "There are no" in page
    assert "Create a new" not in page
    assert "like that" in administrator.get(f"/admin/chat/{name}/?q=nowhere").content.decode()


def test_a_list_offers_to_show_all_only_where_it_shows_less(administrator, user):
    answered(user, "a", api_key=ApiKey.issue(user=user)[0])
    for name in ("response", "conversation", "apikey"):
        for address, less in (
            (f"/admin/chat/{name}/", False),
            (f"/admin/chat/{name}/?o=1&user=", False),
            (f"/admin/chat/{name}/?q=ada", True),
            (f"/admin/chat/{name}/?user=ada", True),
        ):
            page = administrator.get(address).content.decode()
            assert ("Show all" in page, "1 result " in page) == (less, less), address


def test_nobody_measured_what_a_client_sent(administrator, user):
    row = answered(user, "a", imported=True, created_at=NOON, finished_at=NOON)

    assert "0.00 s" not in administrator.get(LIST).content.decode()
    assert "0.00 s" not in page_of(administrator, row)


def test_what_is_empty_is_no_json(administrator, user):
    empty = page_of(administrator, answered(user, "a", token_ids=[1]))
    full = page_of(administrator, answered(user, "a", stop=["END"], client={"user": "u-9"}))

    assert not re.search(r">\s*(\[\]|\{\})\s*<", empty)
    assert "END" in full
    assert "u-9" in full


def test_moments_have_seconds_and_a_zone(administrator, user):
    key, _ = ApiKey.issue(user=user)
    ApiKey.objects.update(created_at=NOON)
    row = answered(user, "a", created_at=NOON, finished_at=NOON)
    row.prompt.conversation.created_at = NOON
    row.prompt.conversation.save()
    conversation = row.prompt.conversation_id

    assert "Asked (UTC)" in administrator.get(LIST).content.decode()
    for address in (
        "/admin/chat/apikey/",
        f"/admin/chat/apikey/{key.pk}/change/",
        "/admin/chat/conversation/",
        f"/admin/chat/conversation/{conversation}/change/",
    ):
        page = administrator.get(address).content.decode()
        assert "2026-11-21 12:00:00 UTC" in page, address


@pytest.mark.parametrize("name", ["response", "conversation", "apikey"])
def test_every_search_says_what_it_finds(administrator, name):
    page = administrator.get(f"/admin/chat/{name}/").content.decode()

    assert re.search(r'placeholder="[^"]*a user[",]', page)
