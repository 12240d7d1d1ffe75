"""The host: one load however many ask, states that can be read, failures as sentences."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import pytest

from modelhost.errors import LoadFailed, NotReady
from modelhost.host import Host, HostState
from tests.modelhost.deaths import Panic
from tests.modelhost.loader import SPEC, FakeEngine, FakeLoader, SparingLoader, loaded


def test_a_new_host_is_idle_and_has_no_engine():
    a_host = Host(FakeLoader())

    assert a_host.state is HostState.IDLE
    for ask in (a_host.engine, a_host.wait):
        with pytest.raises(NotReady, match="No model has been loaded"):
            ask()


def test_many_that_start_at_once_share_one_load():
    loader = FakeLoader()
    a_host = Host(loader)
    together = threading.Barrier(20)
    engines = []

    def ask():
        together.wait()
        a_host.start(SPEC)
        engines.append(a_host.wait(10))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    loader.wait_begun()
    loader.go_on.release()
    for thread in threads:
        thread.join()

    assert loader.specs == [SPEC]
    assert engines == [a_host.engine()] * 20


def test_its_progress_can_be_read_while_it_loads():
    loader = FakeLoader()
    a_host = Host(loader)
    a_host.start(SPEC)
    loader.wait_begun()

    assert a_host.state is HostState.LOADING
    assert a_host.progress.stage == "Loading weights"
    assert a_host.progress.fraction == 0.4
    with pytest.raises(NotReady, match="still loading"):
        a_host.engine()
    with pytest.raises(NotReady, match="still loading"):
        a_host.wait(0)
    loader.go_on.release()
    assert a_host.wait(10)


def test_a_loaded_host_is_ready_and_does_not_load_again():
    loader = FakeLoader()
    a_host = loaded(loader)

    a_host.start(SPEC)

    assert a_host.state is HostState.READY
    assert a_host.engine() is loader.engines[0]
    assert len(loader.specs) == 1


def test_an_engine_that_died_for_good_is_not_handed_out():
    a_host = loaded(FakeLoader())
    a_host.engine().alive = False

    with pytest.raises(NotReady, match="not running"):
        a_host.engine()


def test_whoever_set_it_is_told_that_the_engine_is_lost():
    a_host = loaded(FakeLoader())
    told = []
    a_host.on_lost = lambda: told.append(a_host.state)

    a_host.engine().lose()

    assert told == [HostState.READY]
    assert a_host.engine().stops == 0


def test_an_engine_made_elsewhere_is_watched_as_well():
    a_host = Host()
    engine, told = FakeEngine(), []
    a_host.on_lost = lambda: told.append("lost")
    a_host.serve_with(engine)

    engine.lose()

    assert told == ["lost"]


def test_every_engine_is_told_whom_to_wait_for_before_it_begins():
    def gather() -> None:
        """Requests that arrive together."""

    loader = FakeLoader()
    a_host = Host(loader)
    a_host.gather = gather
    a_host.start(SPEC)
    loader.go_on.release()
    assert a_host.wait(10).gather is gather

    a_host.serve_with(FakeEngine())
    assert a_host.engine().gather is gather


def test_with_nobody_to_tell_a_lost_engine_is_stopped_so_that_its_tickets_end():
    a_host = loaded(FakeLoader())
    engine = a_host.engine()

    engine.lose()

    assert engine.stops == 1


def test_the_loss_of_an_engine_that_is_not_served_any_more_is_nobodys():
    a_host = loaded(FakeLoader())
    engine, told = a_host.engine(), []
    a_host.on_lost = lambda: told.append("lost")
    a_host.unload()

    engine.lose()

    assert told == []


def test_a_failure_is_kept_as_its_sentence():
    loader = FakeLoader(LoadFailed("There is no folder x. Name one."))
    a_host = Host(loader)
    a_host.start(SPEC)
    loader.go_on.release()

    with pytest.raises(LoadFailed, match="There is no folder x"):
        a_host.wait(10)
    assert a_host.state is HostState.FAILED
    assert a_host.error == "There is no folder x. Name one."
    with pytest.raises(LoadFailed):
        a_host.engine()


@pytest.mark.parametrize("kind", [ZeroDivisionError, Panic])
def test_an_error_that_nobody_foresaw_is_a_sentence_too(kind):
    loader = FakeLoader(kind("secret detail"))
    a_host = Host(loader)
    a_host.start(SPEC)
    loader.go_on.release()

    with pytest.raises(LoadFailed, match=rf"a-model could not be loaded \({kind.__name__}\)"):
        a_host.wait(10)
    assert "secret" not in a_host.error


def test_after_a_failure_it_can_load_again():
    loader = FakeLoader(LoadFailed("No."))
    a_host = Host(loader)
    a_host.start(SPEC)
    loader.go_on.release()
    with pytest.raises(LoadFailed):
        a_host.wait(10)

    loader.error = None
    a_host.start(SPEC)
    loader.go_on.release()

    assert a_host.wait(10) is loader.engines[0]
    assert a_host.error == ""


def test_importing_what_the_web_process_imports_brings_in_no_torch():
    code = (
        "import sys, modelhost.host, modelhost.types, modelhost.errors;"
        "print({'torch', 'transformers', 'django'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_the_garbage_collector_passes_over_a_model_until_it_is_unloaded():
    a_host = loaded(SparingLoader())
    a_host.engine()
    assert gc.get_freeze_count() > 0

    a_host.unload()
    assert gc.get_freeze_count() == 0
