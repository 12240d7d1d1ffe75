"""Room on the disk: what is free counts, not what there is."""

from __future__ import annotations

from collections import namedtuple

import pytest
from django.db import connection

from chat import storage

Usage = namedtuple("Usage", ["total", "used", "free"])


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
