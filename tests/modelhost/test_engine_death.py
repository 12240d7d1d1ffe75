"""Death of the engine's thread: no answer shows it, and who causes it again and again is found."""

from __future__ import annotations

import random
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus

from modelhost.errors import NotReady
from modelhost.types import FinishReason, Sampling

PROMPT = [1, 87, 85, 71, 84, 201]
WARM = Sampling(max_tokens=40, temperature=1.2, top_p=0.95, seed=77)
POISON = 666_666  # the seed of a request that kills


class Bomb:
    """Makes a forward pass raise, once: `arm(3)`, and the third from now does."""

    def __init__(self, model):
        self._left = 0
        self._lit = threading.Event()
        self._lit.set()
        model.register_forward_pre_hook(self._count)

    def arm(self, passes):
        self._left = passes

    @contextmanager
    def held(self):
        """No pass is made inside: what is submitted is there before the death."""
        self._lit.clear()
        yield
        self._lit.set()

    def _count(self, *_):
        assert self._lit.wait(10)
        if self._left:
            self._left -= 1
            if not self._left:
                raise RuntimeError("a kernel went wrong")


class Revival:
    """Holds every new start of the manager's thread until it may go on."""

    def __init__(self, engine):
        self._engine = engine
        self._start = engine._manager.start
        self._died, self._go_on = threading.Event(), threading.Event()
        engine._manager.start = self._held

    def wait_died(self):
        assert self._died.wait(10)

    def let(self):
        self._go_on.set()

    def _held(self):
        self._died.set()
        assert self._go_on.wait(10)
        self._start()


class Poison:
    """From now on a request with the seed POISON kills when it has so many tokens."""

    def __init__(self, engine, position):
        self._position = position
        self._brewed = threading.Event()
        self._brewed.set()
        sampler = engine._manager.logit_processor
        self._prepare, sampler.prepare_tensor_args = sampler.prepare_tensor_args, self._explode

    @contextmanager
    def held(self):
        """No step is made inside."""
        self._brewed.clear()
        yield
        self._brewed.set()

    def _explode(self, requests_in_batch, arg_storage):
        assert self._brewed.wait(10)
        for state in (request.state for request in requests_in_batch if request.has_new_token):
            is_poison = state.logit_processor_kwargs["sampling"].seed == POISON
            if is_poison and state.position_offset >= self._position:
                raise RuntimeError("poison")
        return self._prepare(requests_in_batch, arg_storage)


def crew(engine, count, **changes):
    """Tickets of different seeds, prompts, lengths, beginnings and stop texts."""
    tickets = []
    for seed in range(count):
        choice = replace(WARM, **{"seed": seed, "max_tokens": 40 + 5 * seed, **changes})
        stops = ("e", "qu") if seed % 4 == 3 else ()
        beginning = [30, 31, 32 + seed] if seed % 3 == 2 else []
        tickets.append(
            engine.submit(
                [*PROMPT, 40 + seed] * (1 + seed), replace(choice, stop=stops), resume=beginning
            )
        )
    return tickets


def submit_killer(engine):
    return engine.submit(PROMPT, replace(WARM, seed=POISON))


@pytest.fixture
def story(finish):
    """All that a reader gets from a ticket."""
    return lambda ticket: (ticket.resumed_text, finish(ticket), ticket.finish)


@pytest.fixture
def doomed(load_tiny, serve):
    """An engine and its bomb."""
    loaded = load_tiny()
    bomb = Bomb(loaded.model)
    return serve(loaded), bomb


# No answer shows it


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
    bury = engine._jobs.bury
    old = []
    engine._jobs.bury = lambda: (old.extend(running), bury())[1]
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


# Who causes it


@pytest.mark.parametrize("position", [0, 30])
@pytest.mark.parametrize("place", ["first", "last"])
def test_who_kills_fails_alone_and_the_neighbours_get_their_answers(serve, story, position, place):
    engine = serve()
    expected = [story(ticket) for ticket in crew(engine, 6)]
    sentence = "The engine died 3 times while it worked on this generation."

    with Poison(engine, position).held():
        killer = submit_killer(engine) if place == "first" else None
        neighbours = crew(engine, 6)
        killer = killer or submit_killer(engine)

    assert [story(ticket) for ticket in neighbours] == expected
    assert killer.wait(30)
    assert killer.finish.reason is FinishReason.ERROR
    assert killer.finish.error == sentence
    revived(engine)
    assert engine.restarts == 3
    assert story(crew(engine, 1)[0]) == expected[0]
    assert engine.active == 0


def test_several_that_kill_are_all_found(serve, story):
    engine = serve()
    expected = [story(ticket) for ticket in crew(engine, 4)]

    with Poison(engine, 20).held():
        killers = [submit_killer(engine) for _ in range(3)]
        neighbours = crew(engine, 4)

    assert [story(ticket) for ticket in neighbours] == expected
    assert all(ticket.wait(30) for ticket in killers)
    assert {ticket.finish.reason for ticket in killers} == {FinishReason.ERROR}


def test_one_that_is_sent_again_and_again_does_not_add_up_against_the_others(serve, story):
    engine = serve()
    expected = [story(ticket) for ticket in crew(engine, 4, max_tokens=400)]
    Poison(engine, 20)

    neighbours = crew(engine, 4, max_tokens=400)
    for _ in range(4):
        killer = submit_killer(engine)
        assert killer.wait(30)
        revived(engine)

    assert [story(ticket) for ticket in neighbours] == expected


def revived(engine):
    """Wait until it is alive again after a death that was noticed."""
    with engine._life:
        assert engine.alive


def test_of_those_under_suspicion_one_runs_at_a_time(serve, story):
    engine = serve()
    poison = Poison(engine, 20)
    prepare = engine._manager.logit_processor.prepare_tensor_args
    together = {0: 0, 1: 0, 2: 0, 3: 0}  # requests of the largest batch, by deaths before

    def count(requests_in_batch, arg_storage):
        deaths = engine.restarts
        ids = {request.state.request_id for request in requests_in_batch}
        together[deaths] = max(together[deaths], len(ids))
        return prepare(requests_in_batch, arg_storage)

    engine._manager.logit_processor.prepare_tensor_args = count
    with poison.held():
        killer = submit_killer(engine)
        neighbours = crew(engine, 5)

    assert all(story(ticket) for ticket in neighbours)
    assert killer.wait(30)
    assert together == {0: 6, 1: 6, 2: 1, 3: together[3]}


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


# Devices that only another process can use again


class Listener:
    """Is told, and remembers on which threads."""

    def __init__(self):
        self.threads = []
        self._told = threading.Event()

    def __call__(self):
        self.threads.append(threading.current_thread())
        self._told.set()

    def wait(self):
        assert self._told.wait(10)


def test_where_no_restart_is_possible_the_process_is_told_once_and_the_tickets_stay(doomed):
    engine, bomb = doomed
    engine.restartable = False
    listener = Listener()
    engine.when_lost(listener)
    with bomb.held():
        bomb.arm(10)
        tickets = crew(engine, 4)

    listener.wait()

    engine._dispatcher.join(10)
    assert len(listener.threads) == 1
    assert listener.threads[0] not in (threading.current_thread(), engine._dispatcher)
    assert engine.lost
    assert not engine.alive
    assert engine.restarts == 0
    assert all(ticket.finish is None for ticket in tickets)
    assert all(ticket.delivered for ticket in tickets)
    with pytest.raises(NotReady):
        engine.submit(PROMPT, WARM)
    tickets[0].cancel()
    assert engine.active == 3
    engine.stop()
    assert [ticket.finish.error for ticket in tickets] == ["", *["The server is stopping."] * 3]


def test_who_listens_after_the_loss_is_told_as_well(doomed):
    engine, bomb = doomed
    engine.restartable = False
    bomb.arm(3)
    engine.submit(PROMPT, WARM)
    engine._dispatcher.join(10)
    listener = Listener()

    engine.when_lost(listener)

    listener.wait()


def test_where_nobody_listens_the_tickets_of_a_lost_engine_end(doomed):
    engine, bomb = doomed
    engine.restartable = False
    bomb.arm(5)

    ticket = engine.submit(PROMPT, WARM)

    assert ticket.wait(10)
    assert ticket.finish.error == "The engine died or hung while it worked on this generation."
    assert engine.lost


# The thread lives and makes no step


def test_an_engine_that_hangs_is_lost_and_the_process_is_told(serve, load_tiny, gate):
    loaded = load_tiny()
    engine = serve(loaded, patience=0.3)
    listener = Listener()
    engine.when_lost(listener)
    gate.guard(loaded.model)

    ticket = engine.submit(PROMPT, WARM)

    listener.wait()
    assert engine.restartable, "even where a death would be mended: a thread cannot be ended"
    assert engine.lost
    assert not engine.alive
    assert ticket.finish is None, "the next process goes on with it"
    with pytest.raises(NotReady):
        engine.submit(PROMPT, WARM)
    gate.open()


def test_an_engine_without_work_does_not_hang(serve, ids_of):
    engine = serve(patience=0.3)

    for _ in range(2):
        engine._dispatcher.join(0.7)  # two heartbeats and more without a step
        assert len(ids_of(engine.submit(PROMPT, WARM))) == 40

    assert engine.alive


def test_a_step_within_the_patience_is_no_hang(serve, load_tiny, gate, ids_of):
    loaded = load_tiny()
    engine = serve(loaded, patience=30.0)
    gate.guard(loaded.model)

    ticket = engine.submit(PROMPT, WARM)
    gate.wait_reached()
    engine._dispatcher.join(0.7)
    assert engine.alive

    gate.open()
    assert len(ids_of(ticket)) == 40
