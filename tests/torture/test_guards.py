"""The harnesses bite: with a guard of the product broken, the one that watches it fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chat import recovery
from chat.idempotency import Attempt
from chat.live import LiveResponse
from chat.supervisor import Supervisor
from modelhost.engine import Engine
from tests.torture import (
    guard,
    test_cuts,
    test_kill,
    test_owners,
    test_poison,
    test_seeds,
    test_statements,
    test_stops,
    test_takeover,
)
from tests.torture.test_poison import routes  # noqa: F401

BEYOND_THE_CACHE = [{"prompt": "the cat " * 30, "max_tokens": 250}]
SMALL: dict[Any, dict[str, Any]] = {
    test_cuts: {"CUTS": 12},
    test_kill: {"KILLS": 1, "SETTLED_AFTER": 2.0},
    test_owners: {"CHARACTERS": 2000},
    test_poison: {"KILLERS": BEYOND_THE_CACHE, "every_field": lambda: iter(())},
    test_seeds: {"ANSWERS": 4},
    test_statements: {"MOST": 20},
    test_stops: {"SETTLED_AFTER": 2.0},
    test_takeover: {"DEATHS": 1, "READERS": 2},
}

Harness = Callable[..., None]

kill = test_kill.test_whatever_is_killed_no_prompt_is_lost_and_every_response_is_right
statements = test_statements.test_no_crash_at_any_statement_loses_or_doubles_a_prompt
owners = test_owners.test_no_word_reaches_anybody_but_the_one_who_asked_for_it
equal_keys = test_owners.test_a_request_sent_many_times_at_once_with_one_key_is_one_response
takeover = test_takeover.test_the_readers_of_a_dead_process_read_on_at_another
cuts = test_cuts.test_a_reader_cut_off_at_any_byte_comes_back_to_a_seamless_text
seeds = test_seeds.test_an_answer_is_the_same_alone_in_a_batch_and_continued_anywhere
poison = test_poison.test_what_has_killed_engines_is_refused_or_answered_and_harms_nobody
stops = test_stops.test_responses_stopped_at_any_moment_leave_nothing_behind


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harnesses at the size that is enough to notice."""
    for harness, sizes in SMALL.items():
        for name, value in sizes.items():
            monkeypatch.setattr(harness, name, value)


@pytest.fixture
def fails(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a harness with fixtures of its own; it must complain as expected."""

    def run(harness: Harness, complaint: str, **given: Any) -> None:
        names = [name for name in inspect.signature(harness).parameters if name not in given]
        given |= {name: request.getfixturevalue(name) for name in names if name != "request"}
        if "request" in names:
            given["request"] = request
        with pytest.raises(AssertionError, match=complaint):
            harness(**given)

    return run


@pytest.mark.parametrize(
    ("broken", "harness", "given", "complaint"),
    [
        ("owner_filter", owners, {}, "200"),
        ("one_transaction", statements, {"work": "accept"}, "p[0-9]"),
        ("recovery", kill, {}, "found nothing"),
        ("lease", takeover, {}, "assert"),
    ],
    ids=lambda value: value if isinstance(value, str) and value in guard.GUARDS else "",
)
def test_a_guard_broken_in_the_server_is_noticed(
    broken: str,
    harness: Harness,
    given: dict[str, Any],
    complaint: str,
    database: str,
    fails: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(guard.VARIABLE, broken)

    fails(harness, complaint, **given)


def test_a_cursor_that_is_off_by_one_is_noticed(
    transactional_db: None, fails: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveResponse, "follow", guard.late_follow())

    fails(cuts, "at cursor")


def test_a_key_that_is_not_stored_is_noticed(
    transactional_db: None, fails: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Attempt, "remember", lambda *_: None)

    fails(equal_keys, "assert")


def test_a_seed_that_is_lost_in_a_crash_is_noticed(
    transactional_db: None, fails: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = recovery.sampling_of
    monkeypatch.setattr(recovery, "sampling_of", lambda row: replace(kept(row), seed=1))

    fails(seeds, "Said")


def test_a_limit_that_is_not_the_cache_is_noticed(
    cramped: Engine, transactional_db: None, fails: Callable[..., None]
) -> None:
    cramped.card = replace(cramped.card, context_length=512)

    fails(poison, "assert", neighbours=None)


def test_a_client_that_leaves_unnoticed_is_noticed(
    transactional_db: None, fails: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supervisor, "left", lambda *_: None)

    fails(stops, "found nothing", model="witness", count=16, max_tokens=50_000)
