"""Whoever sends passwords, however many at once, takes a fifth of a core and no more."""

from __future__ import annotations

import threading

import pytest
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from chat.access import log_in_forms
from chat.access.password_turns import MOST_OF_ONE, MOST_WAITING, REST, PasswordTurns, TooManyLogIns
from tests.chat.test_log_in import PASSWORD, grace, try_in  # noqa: F401  a fixture
from tests.fakes import Clock
from tests.web import eventually


class Wrong(Exception):
    """What a form raises about a password."""


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def turns(clock: Clock, slept: list[float]) -> PasswordTurns:
    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds

    return PasswordTurns(clock=clock, sleep=sleep)


def look(turns: PasswordTurns, clock: Clock, *, seconds: float, wrong: bool) -> None:
    """Look at one password."""
    try:
        with turns.taken("10.0.0.1"):
            clock.now += seconds
            if wrong:
                raise Wrong
    except Wrong:
        assert wrong


def test_behind_a_wrong_password_the_next_one_waits(turns, clock, slept):
    look(turns, clock, seconds=0.25, wrong=True)
    look(turns, clock, seconds=0.25, wrong=True)

    assert slept == [0.0, REST * 0.25]


def test_behind_a_right_one_nobody_waits(turns, clock, slept):
    look(turns, clock, seconds=0.25, wrong=False)
    look(turns, clock, seconds=0.25, wrong=False)

    assert slept == [0.0, 0.0]


def test_who_comes_when_the_rest_is_over_does_not_wait(turns, clock, slept):
    look(turns, clock, seconds=0.25, wrong=True)
    clock.now += 60
    look(turns, clock, seconds=0.25, wrong=False)

    assert slept == [0.0, 0.0]


def test_one_at_a_time_some_wait_and_others_are_told_to_come_again():
    turns = PasswordTurns()
    together, most = 0, 0
    gate, done = threading.Event(), []

    def one(address: str) -> None:
        nonlocal together, most
        with turns.taken(address):
            together += 1
            most = max(most, together)
            gate.wait(10)
            together -= 1
        done.append(True)

    addresses = map(str, range(MOST_WAITING + 1))
    threads = [threading.Thread(target=one, args=[address]) for address in addresses]
    for thread in threads:
        thread.start()
    eventually(lambda: turns._places.total == MOST_WAITING + 1)
    with pytest.raises(TooManyLogIns), turns.taken("another"):
        pass
    gate.set()
    for thread in threads:
        thread.join(10)

    assert (len(done), most) == (MOST_WAITING + 1, 1)
    with turns.taken("another"):
        pass


def test_one_address_has_few_places_and_keeps_nobody_else_out():
    turns = PasswordTurns()
    gate, looked_at = threading.Event(), []

    def one(address: str) -> None:
        with turns.taken(address):
            gate.wait(10)
            looked_at.append(address)

    threads = [threading.Thread(target=one, args=["10.0.0.1"]) for _ in range(MOST_OF_ONE)]
    for thread in threads:
        thread.start()
    eventually(lambda: turns._places.total == MOST_OF_ONE)
    with pytest.raises(TooManyLogIns), turns.taken("10.0.0.1"):
        pass
    threads.append(threading.Thread(target=one, args=["10.0.0.2"]))
    threads[-1].start()
    eventually(lambda: turns._places.total == MOST_OF_ONE + 1)
    gate.set()
    for thread in threads:
        thread.join(10)

    assert sorted(looked_at) == ["10.0.0.1"] * MOST_OF_ONE + ["10.0.0.2"]
    with turns.taken("10.0.0.1"):
        pass


@pytest.mark.usefixtures("transactional_db")
def test_who_waits_holds_no_database_connection(clock):
    """A pool has few, and everybody else needs them meanwhile."""
    held: list[bool] = []

    def sleep(seconds: float) -> None:
        if seconds:
            held.append(connection.connection is not None)

    turns = PasswordTurns(clock=clock, sleep=sleep)
    look(turns, clock, seconds=0.25, wrong=True)
    connection.ensure_connection()
    look(turns, clock, seconds=0.25, wrong=False)

    assert held == [False]

    waiting: list[BaseDatabaseWrapper] = []

    def another() -> None:
        connection.ensure_connection()
        waiting.append(connections[DEFAULT_DB_ALIAS])
        look(turns, clock, seconds=0.25, wrong=False)

    thread = threading.Thread(target=another)
    with turns.taken("one"):
        thread.start()
        eventually(lambda: waiting and waiting[0].connection is None)
    thread.join(10)


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_the_form_says_so_and_looks_at_no_password(grace, monkeypatch, path):  # noqa: F811
    full = PasswordTurns()
    for address in range(MOST_WAITING + 1):
        full._places.enter(str(address))
    monkeypatch.setattr(log_in_forms, "password_turns", full)
    answer = try_in(PASSWORD, path=path)

    assert answer.status_code == 200
    assert log_in_forms.BUSY in answer.content.decode()
    assert "sessionid" not in answer.cookies
