"""The end of the process, step by step: what is waited for, and for how long at most."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest

from llmsite import shutdown
from llmsite.shutdown import Shutdown
from tests.web import eventually


class Process:
    """What a Shutdown works on; `happened` is the order of events.

    busy: while it is set, answers run and a drain waits for them. stuck: nothing hurries them.
    """

    def __init__(self) -> None:
        self.happened: list[Any] = []
        self.left: Queue[int] = Queue()
        self.idle = threading.Event()
        self.idle.set()
        self.stuck = False
        self.shutdown = Shutdown(
            drain=self.drain, unload=self.unload, seconds=7, leave=self.left.put
        )

    def drain(self, seconds: float) -> None:
        self.happened.append(("drain", seconds))
        if seconds == 0 and not self.stuck:
            self.idle.set()
        self.idle.wait(20)

    def unload(self) -> None:
        self.happened.append("unload")

    def server(self, number: int, frame: Any) -> None:
        """The server's own signal handler."""
        self.happened.append(("server", number))

    def serve(self) -> None:
        """Watch, in front of the server."""
        for number in shutdown.SIGNALS:
            signal.signal(number, self.server)
        self.shutdown.watch_signals()


@pytest.fixture
def process(monkeypatch) -> Iterator[Process]:
    """A process whose end takes no time, with this test's signal handlers."""
    monkeypatch.setattr(shutdown, "LAST_WORDS", 0.01)
    before = {number: signal.getsignal(number) for number in shutdown.SIGNALS}
    made = Process()
    yield made
    made.idle.set()
    for number, handler in before.items():
        signal.signal(number, handler)


def tell(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_it_settles_once_whoever_asks(process):
    asking = [threading.Thread(target=process.shutdown.settle) for _ in range(5)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()

    assert process.happened == [("drain", 7), "unload"]


def test_the_engine_ends_also_when_the_drain_failed(process):
    def fail(seconds: float) -> None:
        raise OSError("the disk is gone")

    one = Shutdown(drain=fail, unload=process.unload, seconds=7, leave=process.left.put)
    with pytest.raises(OSError, match="disk"):
        one.settle()

    assert process.happened == ["unload"]


@pytest.mark.parametrize("number", shutdown.SIGNALS)
def test_the_server_hears_of_a_signal_when_all_is_written(process, number):
    process.serve()
    process.idle.clear()
    tell(number)
    eventually(lambda: process.happened == [("drain", 7)])
    process.idle.set()

    eventually(lambda: len(process.happened) == 3)
    assert process.happened == [("drain", 7), "unload", ("server", number)]


def test_a_second_signal_hurries(process):
    process.serve()
    process.idle.clear()
    tell(signal.SIGTERM)
    eventually(lambda: process.happened)
    tell(signal.SIGINT)

    eventually(lambda: len(process.happened) == 4)
    assert process.happened == [("drain", 7), ("drain", 0), "unload", ("server", signal.SIGTERM)]


def test_a_server_that_does_not_end_is_left(process, monkeypatch):
    monkeypatch.setattr(shutdown, "GRACE", 1 - 7)  # a second, in which all is written
    process.serve()
    tell(signal.SIGTERM)

    assert process.left.get(timeout=5) == 0
    assert process.happened[-1] == ("server", signal.SIGTERM)


def test_a_drain_that_hangs_is_left_with_another_code(process, monkeypatch):
    monkeypatch.setattr(shutdown, "GRACE", 0.05)
    process.serve()
    process.idle.clear()
    process.stuck = True
    tell(signal.SIGTERM)
    eventually(lambda: process.happened)
    tell(signal.SIGTERM)

    assert process.left.get(timeout=5) == 1


def test_without_a_server_that_minds_signals_the_process_ends_itself(process):
    for number in shutdown.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    process.shutdown.watch_signals()
    tell(signal.SIGHUP)

    assert process.left.get(timeout=5) == 0


def test_a_server_that_would_die_of_the_signal_is_told_without_it(process):
    class Uvicorn:
        should_exit = False
        captured: list[int] = []

        def handle_exit(self, number, frame):
            self.captured.append(number)
            self.should_exit = True

    server = Uvicorn()
    signal.signal(signal.SIGTERM, server.handle_exit)
    process.shutdown.watch_signals()
    tell(signal.SIGTERM)

    eventually(lambda: server.should_exit)
    assert server.captured == []
    assert process.happened == [("drain", 7), "unload"]


def test_an_ignored_signal_stays_ignored(process):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.shutdown.watch_signals()

    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_watching_twice_is_watching_once(process):
    process.serve()
    process.shutdown.watch_signals()
    tell(signal.SIGTERM)

    eventually(lambda: len(process.happened) == 3)
    assert process.happened[-1] == ("server", signal.SIGTERM)


def test_outside_the_main_thread_no_handler_is_touched(process):
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=process.shutdown.watch_signals)
    thread.start()
    thread.join()

    assert signal.getsignal(signal.SIGTERM) is before


def test_a_lost_engine_ends_the_process_at_once(process):
    process.idle.clear()
    process.shutdown.lost("engine")

    assert process.happened == [("drain", 0)]
    assert process.left.get(timeout=5) == os.EX_SOFTWARE


def test_a_lost_engine_ends_the_process_also_when_nothing_can_be_written(process, monkeypatch):
    monkeypatch.setattr(shutdown, "GRACE", 0.05)
    process.idle.clear()
    process.stuck = True
    losing = threading.Thread(target=process.shutdown.lost, args=("supervisor",))
    losing.start()

    assert process.left.get(timeout=5) == os.EX_SOFTWARE
    process.idle.set()
    losing.join()


def test_after_a_signal_the_process_does_not_wait_for_the_interpreter_to_be_taken_apart(process):
    process.serve()
    tell(signal.SIGTERM)
    eventually(lambda: len(process.happened) == 3)
    process.shutdown.at_exit()

    assert process.left.get(timeout=5) == 0


def test_without_a_signal_it_ends_as_any_process_does(process):
    process.shutdown.at_exit()

    assert process.happened == [("drain", 7), "unload"]
    assert process.left.empty()


async def test_the_lifespan_protocol_begins_and_ends(process):
    messages: asyncio.Queue[Any] = asyncio.Queue()
    sent: list[str] = []
    for kind in ("startup", "shutdown"):
        messages.put_nowait({"type": f"lifespan.{kind}"})

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await process.shutdown.lifespan({"type": "lifespan"}, messages.get, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert process.happened == [("drain", 7), "unload"]
