"""Databases and sites for the torture, and its figures at the end of the run."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from chat.lifecycle.supervisor import supervisor
from modelhost.engine import Engine
from modelhost.host import host
from tests.modelhost.conftest import load_tiny, tiny_folder  # noqa: F401
from tests.torture.proxy import CuttingProxy
from tests.torture.site import Site
from tests.torture.size import FULL
from tests.torture.witness import StridingWitness
from tests.web import ServerThread

SERVER = os.environ.get("TEST_DATABASE_URL", "")
DATABASES = ["sqlite", "postgresql"] if FULL else ["sqlite"]


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty database; nothing for SQLite, which lies in the data folder."""
    if request.param == "sqlite":
        yield ""
        return
    if not SERVER:
        pytest.skip("TEST_DATABASE_URL names no PostgreSQL")
    name = f"torture_{uuid.uuid4().hex}"
    with psycopg.connect(SERVER, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        yield f"{SERVER.rpartition('/')[0]}/{name}"
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def new_site(tmp_path: Path, database: str) -> Iterator[Callable[..., Site]]:
    """Makes a site over the database; ended after the test."""
    made: list[Site] = []

    def make(**options: Any) -> Site:
        made.append(Site(tmp_path / "data", database=database, **options))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def witness() -> Iterator[StridingWitness]:
    """The process's model is a witness."""
    engine: Any = StridingWitness(every=0.001)
    yield from serving(engine)


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The process's model is a small real one."""
    yield from serving(small_engine(request))


@pytest.fixture
def cramped(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A real one whose cache is smaller than what its model could read."""
    yield from serving(small_engine(request, cache_tokens=256))


def small_engine(request: pytest.FixtureRequest, **options: Any) -> Engine:
    """A random Llama at work."""
    loaded = request.getfixturevalue("load_tiny")()
    engine = Engine(loaded, name="tiny", revision="test", **options)
    engine.start()
    return engine


@pytest.fixture
def proxy(server: ServerThread) -> Iterator[CuttingProxy]:
    """A way to the server that can be cut."""
    made = CuttingProxy(urlsplit(server.address).port or 0)
    yield made
    made.close()


@pytest.fixture
def client(proxy: CuttingProxy, key: str) -> Iterator[httpx.Client]:
    """Through the proxy; one connection for each request, counted from its first byte."""
    alone = httpx.Limits(max_keepalive_connections=0)
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(
        base_url=proxy.address, headers=headers, timeout=20, limits=alone, trust_env=False
    ) as made:
        yield made


def serving(engine: Any) -> Iterator[Any]:
    """Serve with an engine, and leave nothing running."""
    host.serve_with(engine)
    yield engine
    supervisor.stop()
    host.unload()


served = contextmanager(serving)


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Notes a line for docs/figures.md."""
    return lambda line: record_property("figures", line)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figures, where pytest-xdist's workers could not print them."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    for report in reports:
        for name, line in getattr(report, "user_properties", ()):
            if FULL and name == "figures":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {line}")
