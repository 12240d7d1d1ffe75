"""Death of the engine's thread: no answer shows it."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus

from modelhost.errors import NotReady
from modelhost.types import FinishReason
from tests.modelhost.deaths import Bomb, Revival, crew
from tests.modelhost.questions import PROMPT, WARM


@pytest.mark.parametrize("passes", [1, 2, 3, 17, 33, 60])
def test_after_a_death_all_answers_go_on_as_if_there_had_been_none(doomed, story, passes):
    engine, bomb = doomed
    expected = [story(ticket) for ticket in crew(engine, 8)]

    with bomb.held():
        bomb.arm(passes)
        tickets = crew(engine, 8)

    assert [story(ticket) for ticket in tickets] == expected
    assert engine.restarts == 1
    assert engine.alive
    assert engine.active == 0


def test_even_many_deaths_do_not_show(doomed, story):
    engine, bomb = doomed
    expected = [story(ticket) for ticket in crew(engine, 6)]
    for death in (1, 2, 3):
        with bomb.held():
            bomb.arm(10)
            tickets = crew(engine, 6)
        assert [story(ticket) for ticket in tickets] == expected
        assert engine.restarts == death


def test_two_deaths_in_one_life_cost_nobody_anything(load_tiny, serve, story):
    loaded = load_tiny()
    first, second = Bomb(loaded.model), Bomb(loaded.model)
    engine = serve(loaded)
    expected = [story(ticket) for ticket in crew(engine, 6)]

    with first.held():
        first.arm(10)
        second.arm(20)
        tickets = crew(engine, 6)

    assert [story(ticket) for ticket in tickets] == expected
    assert engine.restarts == 2


def test_outputs_of_a_run_before_the_death_change_nothing(doomed, story):
    engine, bomb = doomed
    expected = [story(ticket) for ticket in crew(engine, 4)]
    revival = Revival(engine)
    running = engine._jobs._runs
    thread_died = engine._jobs.thread_died
    old = []
    engine._jobs.thread_died = lambda: (old.extend(running), thread_died())[1]
    with bomb.held():
        bomb.arm(10)
        tickets = crew(engine, 4)
    revival.wait_died()

    for run_id in old:
        for status in (RequestStatus.DECODING, RequestStatus.FINISHED, RequestStatus.FAILED):
            late = GenerationOutput(run_id, generated_tokens=[50] * 30, status=status)
            engine._manager.output_router.output_queue.put(late)
    revival.let()

    assert len(old) == 4
    assert [story(ticket) for ticket in tickets] == expected


def test_a_start_that_fails_is_tried_again(doomed, story):
    engine, bomb = doomed
    expected = story(engine.submit(PROMPT, WARM))
    start = engine._manager.start
    failures = [RuntimeError("can't start new thread")] * 4

    def fail_first():
        if failures:
            raise failures.pop()
        start()

    engine._manager.start = fail_first
    bomb.arm(5)

    assert story(engine.submit(PROMPT, WARM)) == expected
    assert engine.restarts == 1


def test_a_request_that_slips_past_validation_costs_a_restart_not_the_service(serve, story):
    engine = serve()
    expected = story(engine.submit(PROMPT, WARM))
    ticket = engine.submit(PROMPT, WARM)

    engine._manager.add_request([10**9], request_id="bad", max_new_tokens=2, sampling=WARM)

    assert story(ticket) == expected
    assert story(engine.submit(PROMPT, WARM)) == expected


# Meanwhile


def test_a_dead_engine_is_not_alive_and_refuses_or_keeps_what_comes(doomed, story):
    engine, bomb = doomed
    expected = story(engine.submit(PROMPT, WARM))
    revival = Revival(engine)
    bomb.arm(5)
    ticket = engine.submit(PROMPT, WARM)
    revival.wait_died()

    assert not engine.alive
    assert ticket.finish is None
    with pytest.raises(NotReady):
        engine.submit(PROMPT, WARM)
    engine.validate = lambda *_: None  # as if it had died just behind this
    late = engine.submit(PROMPT, WARM)
    revival.let()

    assert story(ticket) == expected
    assert story(late) == expected


def test_a_ticket_that_waits_for_the_next_run_can_be_cancelled(doomed, story):
    engine, bomb = doomed
    expected = story(engine.submit(PROMPT, WARM))
    revival = Revival(engine)
    with bomb.held():
        bomb.arm(5)
        tickets = [engine.submit(PROMPT, WARM) for _ in range(4)]
    revival.wait_died()

    tickets[1].cancel()
    tickets[3].cancel()
    assert engine.active == 2
    revival.let()

    assert [story(ticket) == expected for ticket in tickets] == [True, False, True, False]
    assert tickets[1].finish.reason is FinishReason.CANCELLED
    assert engine.active == 0
    assert_clean(engine)


@pytest.mark.parametrize("deaths", [0, 5])
def test_two_hundred_starts_and_cancels_at_any_moment_leave_nothing_behind(doomed, ids_of, deaths):
    engine, bomb = doomed
    expected = ids_of(engine.submit(PROMPT, WARM))
    free = engine._manager.batch_processor.cache.compute_free_capacity()
    chance = random.Random(20)
    for _ in range(4):
        if engine.restarts < deaths:
            bomb.arm(chance.randrange(2, 30))
        tickets = []
        for seed in range(50):
            try:
                tickets.append(engine.submit(PROMPT, replace(WARM, seed=seed, max_tokens=300)))
            except NotReady:
                continue
        cancel_somewhere(tickets, chance)
        assert all(ticket.wait(30) for ticket in tickets)
        revived_soon(engine)

    assert engine.active == 0
    assert ids_of(engine.submit(PROMPT, WARM)) == expected
    assert_clean(engine)
    assert engine._manager.batch_processor.cache.compute_free_capacity() == free == 1.0


def cancel_somewhere(tickets, chance):
    """Cancel each when it has some number of its tokens, from several threads."""

    def work(some, counts):
        for ticket, count in zip(some, counts, strict=True):
            while len(ticket.delivered) < count and not ticket.wait(0.001):
                pass
            ticket.cancel()

    threads = []
    for at in range(5):
        counts = [chance.randrange(40) for _ in tickets[at::5]]
        threads.append(threading.Thread(target=work, args=(tickets[at::5], counts)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def revived_soon(engine):
    """Wait until it is alive again, also where nobody has noticed the death yet."""
    for _ in range(400):
        if engine.alive:
            return
        threading.Event().wait(0.01)
    raise AssertionError("the engine does not come back")


def assert_clean(engine):
    scheduler = engine._manager.batch_processor.scheduler
    assert not scheduler.active_requests
    assert not scheduler.waiting_requests
    assert not engine._jobs._runs
    assert engine._manager.input_queue.empty()


def test_an_engine_that_is_stopped_while_dead_does_not_come_back(doomed):
    engine, bomb = doomed
    bomb.arm(5)
    ticket = engine.submit(PROMPT, WARM)
    engine._manager._generation_thread.join(10)

    engine.stop()

    assert ticket.wait(10)
    assert ticket.finish.error == "The server is stopping."
    engine._dispatcher.join(10)
    assert not engine._manager.is_running()
    assert engine.restarts == 0


def test_an_engine_that_is_stopped_while_it_starts_again_ends_all_its_tickets(doomed):
    engine, bomb = doomed
    revival = Revival(engine)
    with bomb.held():
        bomb.arm(5)
        tickets = [engine.submit(PROMPT, WARM) for _ in range(4)]
    revival.wait_died()
    stopping = threading.Thread(target=engine.stop)
    stopping.start()

    revival.let()

    stopping.join(10)
    assert all(ticket.wait(0) for ticket in tickets)
    assert {ticket.finish.error for ticket in tickets} == {"The server is stopping."}
    engine._dispatcher.join(10)
    assert not engine._manager.is_running()
