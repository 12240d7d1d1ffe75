"""A table is locked, and requests wait for it: what is being answered is written all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from django.db import connection, transaction

from chat.lifecycle import recovery
from chat.lifecycle.supervisor import supervisor
from tests.chat.rows import ask, row_of
from tests.web import eventually

pytestmark = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="only PostgreSQL has a pool, and locks tables"
)


@pytest.fixture
def none_left(transactional_db) -> Iterator[None]:
    """Requests have every connection of the pool."""
    connection.ensure_connection()
    with ExitStack() as taken:
        for _ in range(connection.pool.max_size - 1):
            taken.enter_context(connection.pool.connection(timeout=5))
        yield


def test_what_is_answered_is_written_while_requests_have_all_connections(
    user, turnstile, none_left
):
    accepted = ask(user)
    turnstile.admit()
    eventually(lambda: row_of(accepted).text == "Hello")
    turnstile.set()

    assert accepted.live.wait(5)
    assert row_of(accepted).status == "done"


def test_a_look_for_what_nobody_carries_does_not_wait_for_prompts(transactional_db, elsewhere):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE chat_prompt IN ACCESS EXCLUSIVE MODE")
        found = elsewhere.submit(lambda: [*recovery.claim(ours=[])])

        assert found.result(5) == []


def sessions() -> int:
    """How many the server has of this database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def test_the_recorders_connection_ends_with_its_thread(user, turnstile):
    before = sessions()
    accepted = ask(user)
    turnstile.admit()
    eventually(lambda: row_of(accepted).text == "Hello")
    assert sessions() > before

    supervisor.stop()
    eventually(lambda: sessions() == before)
