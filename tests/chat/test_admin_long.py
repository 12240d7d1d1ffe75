"""Pages of long answers and long conversations are made with no more work than they show."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from chat.models import Response, Verdict
from tests.chat.rows import answered


@pytest.fixture
def row(user) -> Response:
    judged = answered(user, "It is Paris.", token_ids=[40123, 7])
    Verdict.objects.create(response=judged, reviewer=user, value="good")
    return judged


def page_of(administrator: Client, row: Response) -> str:
    """What is known about a response."""
    return administrator.get(f"/admin/chat/response/{row.pk}/change/").content.decode()


def test_a_page_asks_the_database_nothing_twice(administrator, row):
    for address in (
        f"/admin/chat/response/{row.pk}/change/",
        f"/admin/chat/conversation/{row.prompt.conversation_id}/change/",
    ):
        administrator.get(address)
        with CaptureQueriesContext(connection) as captured:
            administrator.get(address)
        asked = [query["sql"] for query in captured]
        assert len(asked) == len(set(asked)), address


def test_a_pages_values_are_each_rows_own(administrator, row, user):
    other = answered(user, "It is Rome.", token_ids=[50321])

    assert "40123, 7" in page_of(administrator, row)
    assert "50321" in page_of(administrator, other)


def test_ids_take_as_much_of_a_page_as_they_are_long(administrator, row):
    before = len(page_of(administrator, row))
    Response.objects.update(token_ids=[40123] * 20_000)

    assert len(page_of(administrator, row)) - before < 20_000 * 10
