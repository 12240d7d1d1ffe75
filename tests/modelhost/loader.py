"""A loader and an engine for tests of the host: they do as they are told, and count."""

from __future__ import annotations

import threading

from modelhost.host import Host, spare_the_collector
from modelhost.types import ModelSpec

SPEC = ModelSpec(model="a-model")


class FakeEngine:
    """Says whether it lives and counts its stops; `lose` is the end of its device."""

    def __init__(self):
        self.alive = True
        self.stops = 0

    def when_lost(self, call):
        self.lose = call

    def stop(self):
        self.alive = False
        self.stops += 1


class FakeLoader:
    """Loads when it is told to; keeps what it was asked for and what it made."""

    def __init__(self, error=None):
        self.specs, self.engines = [], []
        self.error = error
        self.running = self.most_running = 0
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, spec, progress):
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.specs.append(spec)
        progress.begin("Loading weights", total=10, unit="tensor")
        progress.advance(4)
        self.begun.release()
        assert self.go_on.acquire(timeout=10)
        self.running -= 1
        if self.error:
            raise self.error
        self.engines.append(FakeEngine())
        return self.engines[-1]

    def wait_begun(self):
        assert self.begun.acquire(timeout=10)


class SparingLoader(FakeLoader):
    """As the real one, keeps what it made from the garbage collector."""

    def __call__(self, spec, progress):
        engine = super().__call__(spec, progress)
        spare_the_collector()
        return engine


def loaded(loader, spec=SPEC):
    """A host that has loaded."""
    a_host = Host(loader)
    a_host.start(spec)
    loader.go_on.release()
    a_host.wait(10)
    return a_host
