"""The host unloads and loads again: never two models at once, and nothing of what was given up."""

from __future__ import annotations

import gc
import threading

import pytest

from modelhost.errors import LoadFailed, NotReady
from modelhost.host import Host, HostState
from modelhost.types import ModelSpec
from tests.modelhost.loader import SPEC, FakeEngine, FakeLoader, SparingLoader, loaded


def test_unloading_stops_the_engine_and_makes_it_idle():
    loader = FakeLoader()
    a_host = loaded(loader)

    a_host.unload()
    a_host.unload()  # twice is once

    assert a_host.state is HostState.IDLE
    assert loader.engines[0].stops == 1
    with pytest.raises(NotReady):
        a_host.engine()


def test_what_was_unloaded_can_be_loaded_again():
    loader = FakeLoader()
    a_host = loaded(loader)
    a_host.unload()

    a_host.start(SPEC)
    loader.go_on.release()

    assert a_host.wait(10) is loader.engines[1]


def test_reloading_replaces_the_model():
    loader = FakeLoader()
    a_host = loaded(loader)

    a_host.unload()
    a_host.start(ModelSpec(model="another"))
    loader.go_on.release()

    assert a_host.wait(10) is loader.engines[1]
    assert [spec.model for spec in loader.specs] == ["a-model", "another"]
    assert loader.engines[0].stops == 1


def test_a_load_that_was_given_up_is_thrown_away_when_it_comes():
    loader = FakeLoader()
    a_host = Host(loader)
    a_host.start(SPEC)
    loader.wait_begun()
    waiting = threading.Thread(target=pytest.raises, args=(NotReady, a_host.wait))
    waiting.start()

    a_host.unload()

    waiting.join(10)
    assert not waiting.is_alive()
    assert a_host.state is HostState.IDLE
    loader.go_on.release()
    a_host.start(SPEC)  # waits for its turn, so the first load is over when this one begins
    loader.go_on.release()
    assert a_host.wait(10) is loader.engines[1]
    assert loader.engines[0].stops == 1


def test_a_load_is_given_up_for_an_engine_that_was_made_elsewhere():
    loader, elsewhere = FakeLoader(), FakeEngine()
    a_host = Host(loader)
    a_host.start(SPEC)
    loader.wait_begun()

    a_host.serve_with(elsewhere)
    loader.go_on.release()
    with a_host._turn:  # which the load has until it is over
        assert a_host.engine() is elsewhere
    assert loader.engines[0].stops == 1


def test_the_garbage_collector_looks_at_a_model_that_was_given_up_while_it_loaded():
    loader = SparingLoader()
    a_host = Host(loader)
    a_host.start(SPEC)
    loader.wait_begun()

    a_host.unload()
    a_host.start(SPEC)
    loader.go_on.release()
    loader.wait_begun()  # the second load, so the first is over

    assert gc.get_freeze_count() == 0
    loader.go_on.release()
    a_host.wait(10)
    a_host.unload()


def test_reloading_during_a_load_ends_with_the_new_model_and_never_loads_two_at_once():
    loader = FakeLoader()
    a_host = Host(loader)
    a_host.start(SPEC)
    loader.wait_begun()

    a_host.unload()
    a_host.start(ModelSpec(model="another"))
    assert a_host.state is HostState.LOADING
    loader.go_on.release()
    loader.go_on.release()

    assert a_host.wait(10) is loader.engines[1]
    assert loader.specs[1].model == "another"
    assert loader.most_running == 1
    assert loader.engines[0].stops == 1


def test_the_failure_of_a_load_that_was_given_up_is_nobodys():
    loader = FakeLoader(LoadFailed("No."))
    a_host = Host(loader)
    a_host.start(SPEC)
    loader.wait_begun()
    a_host.unload()
    a_host.start(ModelSpec(model="another"))

    loader.go_on.release()
    loader.wait_begun()  # the second has begun: the first is over
    loader.error = None
    loader.go_on.release()

    assert a_host.wait(10).alive
    assert a_host.error == ""
