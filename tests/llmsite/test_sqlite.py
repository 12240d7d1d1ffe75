"""SQLite's connections are kept and used again, by anybody, unless something is wrong with them."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from django.db import DatabaseError
from django.db.utils import ConnectionHandler

from llmsite.databases import database
from llmsite.sqlite import base
from llmsite.sqlite.base import KEPT, Pool, file_of

FILE = ("rows.sqlite3", 1, 1)


@pytest.fixture
def pool(monkeypatch):
    """One of its own: from the process's, the test database's connection may be lent."""
    monkeypatch.setattr(base, "pool", Pool())
    return base.pool


@pytest.fixture
def databases(tmp_path, pool, django_db_blocker):
    """Handles to a database of its own; a thread has one. Nothing of it stays."""
    file = tmp_path / "rows.sqlite3"
    handler = ConnectionHandler({"default": database(f"sqlite:///{file}")})
    with django_db_blocker.unblock():
        run(handler, "CREATE TABLE row (name TEXT UNIQUE)")
        handler.close_all()
        yield handler
        handler.close_all()
    pool.empty()


def run(handler, sql, *parameters):
    """The rows that a statement gives."""
    with handler["default"].cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def opened(handler):
    """The connection of this thread, open."""
    handler["default"].ensure_connection()
    return handler["default"].connection


def test_what_one_thread_closes_the_next_one_uses(databases):
    first = opened(databases)
    databases.close_all()

    def elsewhere():
        connection = opened(databases)
        run(databases, "INSERT INTO row VALUES (%s)", "there")
        databases.close_all()
        return connection

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(elsewhere).result() is first
    assert run(databases, "SELECT name FROM row") == [("there",)]
    assert databases["default"].connection is first


def test_settings_of_the_connection_hold_when_it_is_used_again(databases):
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    for _ in range(2):
        assert [run(databases, f"PRAGMA {name}")[0][0] for name in names] == ["wal", 2, 1, 20000]
        databases.close_all()


def test_a_connection_inside_a_transaction_is_not_kept(databases):
    first = opened(databases)
    first.execute("BEGIN IMMEDIATE")
    first.execute("INSERT INTO row VALUES ('half')")
    databases.close_all()

    assert opened(databases) is not first
    assert run(databases, "SELECT count(*) FROM row") == [(0,)]


def test_a_connection_on_which_something_went_wrong_is_not_kept(databases):
    first = opened(databases)
    with pytest.raises(DatabaseError):
        run(databases, "SELECT * FROM nothing")
    databases.close_all()

    assert opened(databases) is not first


def test_a_database_that_was_removed_is_not_gone_on_with(databases, tmp_path):
    opened(databases)
    databases.close_all()
    for file in tmp_path.glob("rows.sqlite3*"):
        file.unlink()

    assert run(databases, "SELECT count(*) FROM sqlite_master") == [(0,)]


def used_at_once(databases, number):
    """Connections of as many threads, which close them when all have one."""
    everybody = threading.Barrier(number)

    def use():
        connection = opened(databases)
        everybody.wait(10)
        databases.close_all()
        return connection

    with ThreadPoolExecutor(number) as threads:
        return {future.result() for future in [threads.submit(use) for _ in range(number)]}


def open_files(folder):
    """How many files in there this process has open."""
    links = []
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed by now
            links.append(handle.readlink())
    return sum(link.parent == folder for link in links)


def test_as_many_are_kept_as_are_used_at_a_time(databases, pool, tmp_path):
    used = used_at_once(databases, KEPT)
    kept = {pool.take(file_of(tmp_path / "rows.sqlite3")) for _ in range(KEPT)}
    for connection in kept:
        pool.put(file_of(tmp_path / "rows.sqlite3"), connection, clean=True)

    assert kept == used


def test_nothing_stays_open_after_a_burst(databases, tmp_path):
    """SQLite keeps the files of closed connections open beside those of open ones."""
    assert len(used_at_once(databases, 5 * KEPT)) == 5 * KEPT

    assert open_files(tmp_path) == 0
    opened(databases)
    databases.close_all()
    assert open_files(tmp_path) > 0, "one is kept again"


class Closing:
    """A connection; `meanwhile` happens while it is being closed."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self._meanwhile = meanwhile
        self.closed = False

    def close(self) -> None:
        self._meanwhile()
        self.closed = True


def lent(pool: Pool, *connections: Closing) -> None:
    """These are in use."""
    for _ in connections:
        assert pool.take(FILE) is None


def test_who_opens_one_while_all_are_closed_has_it_closed_as_well():
    """Else those that were closed stay open beside it, for as long as it is kept."""
    pool, late = Pool(most=1), Closing()
    kept, beyond = Closing(lambda: lent(pool, late)), Closing()
    lent(pool, kept, beyond)
    pool.put(FILE, kept, clean=True)
    pool.put(FILE, beyond, clean=True)  # closes both
    assert (kept.closed, late.closed) == (True, False)

    pool.put(FILE, late, clean=True)
    assert late.closed


def test_nobody_tidies_up_while_one_is_still_being_closed():
    pool, kept, last = Pool(most=1), Closing(), Closing()
    taken: list[Closing | None] = []

    def others_go_on() -> None:
        pool.put(FILE, last, clean=True)
        taken.append(pool.take(FILE))

    beyond = Closing(others_go_on)
    lent(pool, kept, beyond, last)
    pool.put(FILE, kept, clean=True)
    pool.put(FILE, beyond, clean=True)
    late = taken[0] or Closing()
    pool.put(FILE, late, clean=True)

    assert [late.closed, kept.closed, beyond.closed] == [True] * 3


def test_a_database_that_cannot_be_opened_leaves_the_rest_as_it_is(databases, tmp_path):
    opened(databases)
    missing = database(f"sqlite:///{tmp_path / 'no' / 'folder.sqlite3'}")
    with pytest.raises(DatabaseError):
        opened(ConnectionHandler({"default": missing}))
    databases.close_all()
    used_at_once(databases, 2 * KEPT)

    assert open_files(tmp_path) == 0


def test_a_new_database_is_readable_by_its_owner_only(databases, tmp_path):
    tmp_path.chmod(0o755)
    run(databases, "INSERT INTO row VALUES (%s)", "a prompt")

    made = list(tmp_path.iterdir())
    assert {file.name for file in made} >= {"rows.sqlite3", "rows.sqlite3-wal"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in made} == {0o600}


def test_the_child_of_a_fork_opens_its_own(databases):
    first = opened(databases)
    databases.close_all()
    child = os.fork()
    if not child:
        os._exit(3 if opened(databases) is first else 0)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert opened(databases) is first
