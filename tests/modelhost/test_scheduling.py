"""Who is taken in when the cache is full, and whose prompt is computed: in turn, shared fairly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelhost.engine import Engine
from modelhost.ticket import Ticket
from modelhost.types import Sampling
from tests.modelhost.conftest import Gate

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


STEP = 96  # tokens
PROMPT = [*START * 19]  # of more than four steps


@pytest.fixture
def held(load_tiny, serve, gate) -> Engine:
    """An engine of small steps that is in the middle of one until the gate opens."""
    loaded = load_tiny()
    engine = serve(loaded)
    engine._manager.batch_processor.max_batch_tokens = STEP
    gate.guard(loaded.model)
    engine.submit(START, Sampling(max_tokens=1))
    gate.wait_reached()
    return engine


def in_order_of_their_first_token(tickets: dict[str, Ticket], gate: Gate) -> dict[str, list[int]]:
    """The ids of all answers, read from when the gate opens."""
    answers: dict[str, list[int]] = {}

    async def read(name: str, ticket: Ticket) -> None:
        async for piece in ticket:
            answers.setdefault(name, []).extend(piece.token_ids)

    async def read_all() -> None:
        reading = asyncio.gather(*(read(*pair) for pair in tickets.items()))
        await asyncio.sleep(0)
        gate.open()
        async with asyncio.timeout(60):
            await reading

    asyncio.run(read_all())
    return answers


def test_short_prompts_do_not_wait_for_the_end_of_a_long_one(held, gate, ids_of):
    prompts = {"long": PROMPT, **{f"short {n}": [40 + n, *START] for n in range(6)}}
    tickets = {name: held.submit(prompt, SHORT, owner=name) for name, prompt in prompts.items()}
    answers = in_order_of_their_first_token(tickets, gate)

    assert list(answers)[-1] == "long"
    for name, prompt in prompts.items():
        assert answers[name] == ids_of(held.submit(prompt, SHORT, owner=f"{name} alone"))


def test_a_long_prompt_has_half_of_each_step_however_many_come_behind_it(held, gate):
    crowd = {f"short {n}": held.submit([40 + n, *START], SHORT, owner="one") for n in range(8)}
    tickets = {"long": held.submit(PROMPT, SHORT, owner="two")}
    late = {f"late {n}": held.submit([80 + n, *START], SHORT, owner="three") for n in range(60)}
    order = list(in_order_of_their_first_token({**crowd, **tickets, **late}, gate))

    assert set(order[:8]) == set(crowd), "who came before it is served before it"
    assert order.index("long") < len(order) - 20


def test_short_prompts_do_not_wait_for_several_long_ones(held, gate, ids_of):
    prompts = {f"long {n}": [60 + n, *PROMPT] for n in range(4)}
    prompts |= {f"short {n}": [40 + n, *START] for n in range(6)}
    tickets = {name: held.submit(prompt, SHORT, owner=name) for name, prompt in prompts.items()}
    answers = in_order_of_their_first_token(tickets, gate)

    order = list(answers)
    assert set(order[:6]) == {f"short {n}" for n in range(6)}
    assert order[6:] == [f"long {n}" for n in range(4)], "one after the other"
    for name, prompt in prompts.items():
        assert answers[name] == ids_of(held.submit(prompt, SHORT, owner=f"{name} alone"))


def test_alone_a_long_prompt_has_all_of_each_step(held, gate, ids_of):
    before = held._manager.current_batch
    ticket = held.submit(PROMPT, Sampling(max_tokens=1), owner="two")
    gate.open()
    ids_of(ticket)

    assert held._manager.current_batch - before <= len(PROMPT) // STEP + 2
