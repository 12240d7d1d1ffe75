"""Who is taken in when the cache is full: in turn, whatever the sizes and the sharing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelhost.engine import Engine
from modelhost.types import Sampling

CACHE = 256
START = [1, *range(10, 30)]
LONG = Sampling(max_tokens=150)  # two of them do not fit together
SHORT = Sampling(max_tokens=8)


@pytest.fixture(params=[False, True], ids=["alone", "sharing"])
def engine(request: pytest.FixtureRequest, serve: Callable[..., Engine]) -> Engine:
    return serve(cache_tokens=CACHE, share_prefixes=request.param)


@pytest.fixture
def crowd(engine: Engine, ids_of: Callable) -> Iterator[list[int]]:
    """Two clients of one owner who always have a small request under way; how many ended."""
    ended: list[int] = []
    enough = threading.Event()

    def ask_again_and_again() -> None:
        while not enough.is_set():
            ended.append(len(ids_of(engine.submit(START, LONG, owner="crowd"))))

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(ask_again_and_again) for _ in range(2)]
        yield ended
        enough.set()
        for client in clients:
            client.result()


@pytest.mark.parametrize("owner", ["crowd", "ada"])
def test_a_large_prompt_is_not_overtaken_for_ever(engine, crowd, ids_of, owner):
    large = [*START, *(30 + step % 150 for step in range(130))]

    for _ in range(5):
        before = len(crowd)
        assert len(ids_of(engine.submit(large, SHORT, owner=owner))) == SHORT.max_tokens
        assert len(crowd) - before <= 4, "the two that ran, and one each in between"

    assert set(crowd) <= {LONG.max_tokens}
    assert engine.restarts == 0


def test_small_requests_beside_a_full_cache_share_and_are_served_in_turn(engine, crowd, ids_of):
    for step in range(20):
        before = len(crowd)
        assert len(ids_of(engine.submit([*START, 40 + step], SHORT, owner="crowd"))) == 8
        assert len(crowd) - before <= 4


def test_who_was_put_back_goes_on_before_who_never_ran(engine, ids_of):
    ended: list[str] = []

    def ask(name: str, prompt: list[int], choice: Sampling) -> threading.Thread:
        ticket = engine.submit(prompt, choice, owner=name)
        thread = threading.Thread(target=lambda: (ids_of(ticket), ended.append(name)))
        thread.start()
        return thread

    asked = [ask("one", START, LONG), ask("two", [*START, 5], LONG)]
    asked += [ask(f"later {n}", [7 + n, *START * 11], SHORT) for n in range(3)]
    for thread in asked:
        thread.join()

    assert set(ended[:2]) == {"one", "two"}, "one of them lost its place to the other"
    assert engine.restarts == 0
