"""A disk that fills up: what runs is written to its end, and nothing new begins."""

from __future__ import annotations

from collections import namedtuple

import pytest
from django.db import connection

from chat.limits import storage
from tests.chat.refusals import named
from tests.chat.rows import answered

Usage = namedtuple("Usage", ["total", "used", "free"])


def test_a_disk_that_is_nearly_full_takes_nothing_new(api, engine, settings, user):
    row = answered(user, "Hi")
    settings.LLMSITE_DISK_RESERVE = 1 << 60
    answer = api.post("/chat/new/message/", json={"prompt": "Say it"})

    if connection.vendor != "sqlite":
        assert answer.status_code == 200, "its disk is not ours"
        return
    assert (answer.status_code, named(answer)[0]) == (507, "insufficient_storage")
    empty = api.post("/api/conversations/", json={"title": "Empty"})
    assert (empty.status_code, named(empty)[0]) == (507, "insufficient_storage")
    assert api.get("/readyz").status_code == 503
    assert api.get(f"/api/responses/{row.pk}/").status_code == 200
    assert engine.prompts == []


@pytest.mark.parametrize(("reserve", "full"), [(9, False), (10, False), (11, True)])
def test_nothing_new_is_stored_where_less_than_the_reserve_is_free(
    db, settings, monkeypatch, reserve, full
):
    if connection.vendor != "sqlite":
        pytest.skip("another machine's disk is that machine's business")
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: Usage(100, 90, 10))
    settings.LLMSITE_DISK_RESERVE = reserve
    if not full:
        storage.check()
        return
    with pytest.raises(storage.DiskFull):
        storage.check()
