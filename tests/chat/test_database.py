"""What the database's trouble is called, and a database that is older than the code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import DataError, Error, IntegrityError, OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder

from chat import database
from chat.database import missing_migrations, outage
from chat.lifecycle.live import LiveResponse
from chat.lifecycle.record import Record
from chat.lifecycle.upkeep import Upkeep
from chat.models import Response
from modelhost.checkpoints.files import LONGEST_FOLDER_NAME, fingerprint
from tests.chat.rows import left_behind


@contextmanager
def read_only() -> Iterator[None]:
    """As a standby is, or a primary that was stepped down."""
    on, off = {
        "postgresql": ("SET default_transaction_read_only = on", "RESET ALL"),
        "sqlite": ("PRAGMA query_only = ON", "PRAGMA query_only = OFF"),
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(on)
        try:
            yield
        finally:
            cursor.execute(off)


def refusal(sql: str) -> Error:
    """What the database says to it."""
    with pytest.raises(Error) as caught, connection.cursor() as cursor:
        cursor.execute(sql)
    return caught.value


def test_a_database_that_takes_nothing_is_no_mistake_of_ours(transactional_db):
    with read_only():
        error = refusal("UPDATE chat_response SET text = ''")
    assert outage(error) in (database.READ_ONLY, database.SILENT)


@pytest.mark.parametrize("sql", ["SELECT * FROM chat_later", "SELECT later FROM chat_response"])
def test_what_it_lacks_is_no_mistake_of_ours(transactional_db, sql):
    assert outage(refusal(sql)) == database.OUTDATED


def test_other_errors_are(transactional_db, user):
    error = refusal("INSERT INTO chat_response (id) VALUES (NULL)")

    assert isinstance(error, IntegrityError)
    assert [outage(one) for one in (error, DataError("no"), ValueError("no"))] == [None] * 3


@contextmanager
def older() -> Iterator[str]:
    """A database that has not been given the newest migration; its name."""
    rows = MigrationRecorder(connection).migration_qs.filter(app="chat")
    newest = rows.latest("id").name
    rows.filter(name=newest).delete()
    try:
        yield newest
    finally:
        MigrationRecorder(connection).record_applied("chat", newest)


def test_nothing_is_missing_behind_a_migration(transactional_db):
    assert missing_migrations() == []
    with older() as newest:
        assert missing_migrations() == [f"chat.{newest}"]


def test_over_an_older_database_nothing_is_taken_over_until_it_is_migrated(user, engine, caplog):
    adopted: list[Record] = []
    upkeep = Upkeep({}, lives=list, live=LiveResponse, adopt=lambda one, _: adopted.append(one))
    row = left_behind(user, "Hel")
    with older() as newest:
        upkeep.take_over()
        upkeep.take_over()
        assert adopted == []
        assert upkeep.missing == [f"chat.{newest}"]
    upkeep.take_over()

    assert [record.live.id for record in adopted] == [row.pk]
    [said] = [one for one in caplog.records if one.levelname == "CRITICAL"]
    assert said.getMessage() == f"the database lacks chat.{newest}: run manage.py migrate"


def test_over_an_older_database_it_is_not_ready(client_for, engine, monkeypatch):
    monkeypatch.setattr("chat.lifecycle.supervisor.Supervisor.missing", ["chat.0007_newer"])
    answer = client_for(None).get("/readyz")

    assert answer.status_code == 503
    assert "not prepared for this version" in answer.json()["detail"]


def test_trouble_at_each_look_is_said_once(user, engine, caplog):
    upkeep = Upkeep({}, lives=list, live=LiveResponse, adopt=lambda *carried: None)
    upkeep.take_over()
    for _ in range(2):
        with looks_fail():
            upkeep.take_over()
            upkeep.take_over()
        upkeep.take_over()

    said = [(one.levelname, one.exc_info) for one in caplog.records]
    assert said == [("ERROR", None)] * 2, "once for each time that it went away"


@pytest.mark.parametrize("path", ["/", "/admin/", "/admin/chat/response/"])
def test_a_page_says_what_the_api_says_while_it_is_away(client, user, path, caplog):
    client.force_login(user)
    with looks_fail():
        answer = client.get(path)

    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert [one.exc_info for one in caplog.records] == [None] * len(caplog.records)


@contextmanager
def looks_fail() -> Iterator[None]:
    """The database answers no question."""

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("the server closed the connection")

    with connection.execute_wrapper(fail):
        yield


def test_a_model_that_is_loaded_has_a_name_that_a_row_takes():
    longest = f"{'m' * LONGEST_FOLDER_NAME}@{fingerprint([])}"
    for name in ("model", "adapter"):
        assert len(longest) <= Response._meta.get_field(name).max_length
