"""The harnesses bite: with a guard of the product broken, the one that watches it fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chat.idempotency import Attempt
from chat.lifecycle import recovery
from chat.lifecycle.live import LiveResponse
from chat.lifecycle.supervisor import Supervisor
from modelhost.engine import Engine
from modelhost.sharing import OwnedBlocks
from tests.torture import (
    guard,
    test_cuts,
    test_kill,
    test_owners,
    test_poison,
    test_real_owners,
    test_seeds,
    test_statements,
    test_stops,
    test_takeover,
)
from tests.torture.test_poison import routes  # noqa: F401
from tests.torture.test_real_owners import clients  # noqa: F401
from tests.torture.witness import StridingWitness

BEYOND_THE_CACHE = [{"prompt": "the cat " * 30, "max_tokens": 250}]
SMALL: dict[Any, dict[str, Any]] = {
    test_cuts: {"CUTS": 12},
    test_kill: {"KILLS": 2},
    test_owners: {"CHARACTERS": 2000},
    test_poison: {"KILLERS": BEYOND_THE_CACHE, "every_field": lambda: iter(())},
    test_seeds: {"ANSWERS": 4},
    test_statements: {"MOST": 20},
    test_stops: {"SETTLED_AFTER": 8.0},
    test_takeover: {"DEATHS": 1, "READERS": 2},
}
STOPS = {
    "model": "witness",
    "stop_some": test_stops.stop_many,
    "count": 16,
    "max_tokens": 50_000,
}
SOCKET_STOPS = {**STOPS, "stop_some": test_stops.stop_many_by_socket}
SLOWLY = 0.05  # seconds between a witness's pieces: what nobody stops lasts minutes

Harness = Callable[..., None]

kill = test_kill.test_whatever_is_killed_no_prompt_is_lost_and_every_response_is_right
statements = test_statements.test_no_crash_at_any_statement_loses_or_doubles_a_prompt
owners = test_owners.test_no_word_reaches_anybody_but_the_one_who_asked_for_it
equal_keys = test_owners.test_a_request_sent_many_times_at_once_with_one_key_is_one_response
real_owners = test_real_owners.test_each_owner_is_told_what_it_would_be_told_alone
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
def run(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a harness with fixtures of its own."""

    def call(harness: Harness, **given: Any) -> None:
        names = [name for name in inspect.signature(harness).parameters if name not in given]
        given |= {name: request.getfixturevalue(name) for name in names if name != "request"}
        if "request" in names:
            given["request"] = request
        harness(**given)

    return call


@pytest.fixture
def fails(run: Callable[..., None]) -> Callable[..., None]:
    """Runs a harness; it must complain in the words that only this broken guard brings about."""

    def complains(harness: Harness, complaint: str, **given: Any) -> None:
        with pytest.raises(AssertionError, match=complaint):
            run(harness, **given)

    return complains


@pytest.mark.parametrize("harness", [kill, owners], ids=["kill", "owners"])
def test_a_harness_of_sites_complains_of_nothing_when_nothing_is_broken(
    harness: Harness, database: str, run: Callable[..., None]
) -> None:
    """At the size that it has below, so that what it notices there is the guard.

    Two are not here, for their own tests do all of it and more in every run: the walk over the
    statements, of which these steps are the first, and the takeover, with as many deaths.
    """
    run(harness)


@pytest.mark.parametrize(
    ("harness", "given"),
    [
        (cuts, {}),
        (seeds, {}),
        (poison, {"neighbours": None}),
        (stops, STOPS),
        (stops, SOCKET_STOPS),
    ],
    ids=["cuts", "seeds", "poison", "stops", "socket-stops"],
)
def test_a_harness_in_this_process_complains_of_nothing_when_nothing_is_broken(
    harness: Harness, given: dict[str, Any], transactional_db: None, run: Callable[..., None]
) -> None:
    """The same. Equal keys and a real engine's owners are not here: they are not made smaller."""
    run(harness, **given)


@pytest.mark.parametrize(
    ("broken", "harness", "given", "complaint"),
    [
        ("owner_filter", owners, {}, "got what is foreign"),
        # On PostgreSQL the lock, which asks for a transaction, is the first to complain.
        ("one_transaction", statements, {"work": "accept"}, "asked twice|select_for_update"),
        ("recovery", kill, {}, "left unfinished 10 s after a start"),
        ("lease", takeover, {}, "taken from a process that lives"),
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

    fails(cuts, "[0-9]+ characters at cursor")


def test_a_key_that_is_not_stored_is_noticed(
    transactional_db: None, fails: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Attempt, "remember", lambda *_: None)

    fails(equal_keys, "one key was asked [0-9]+ times")


def test_a_seed_that_is_lost_in_a_crash_is_noticed(
    transactional_db: None, fails: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = recovery.sampling_of
    monkeypatch.setattr(recovery, "sampling_of", lambda row: replace(kept(row), seed=1))

    fails(seeds, "continued behind 0 ids it says another text")


def test_blocks_that_are_found_by_their_place_alone_are_noticed(
    transactional_db: None, fails: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes second reads on in somebody else's prompt."""
    monkeypatch.setattr(OwnedBlocks, "_salted", lambda blocks, owner, tokens: [0] * len(tokens))

    fails(real_owners, "was told foreign words")


def test_a_limit_that_is_not_the_cache_is_noticed(
    cramped: Engine, transactional_db: None, fails: Callable[..., None]
) -> None:
    cramped.card = replace(cramped.card, context_length=512)

    fails(poison, "the engine died [0-9]+ times", neighbours=None)


@pytest.mark.parametrize("given", [STOPS, SOCKET_STOPS], ids=["http", "socket"])
def test_a_client_that_leaves_unnoticed_is_noticed(
    given: dict[str, Any],
    transactional_db: None,
    witness: StridingWitness,
    fails: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    witness.every = SLOWLY
    monkeypatch.setattr(Supervisor, "left", lambda *_: None)

    fails(stops, "generated for nobody", **given)
