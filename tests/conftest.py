"""What many tests share: rows, a scripted engine, a real server on a real socket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client

from chat.lifecycle.supervisor import supervisor
from chat.models import ApiKey
from modelhost.host import host
from tests.fakes import ScriptedEngine
from tests.web import ServerThread


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what touches the database, so that it can run on PostgreSQL as well."""
    for item in items:
        names = set(getattr(item, "fixturenames", []))
        if names & {"db", "transactional_db"} or item.get_closest_marker("django_db"):
            item.add_marker("database")
        if "browser" in names:
            item.add_marker("browser")


@pytest.fixture(autouse=True)
def quick_passwords(settings: Any) -> None:
    """Hashing a password well takes longer than most tests."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True, scope="session")
def quick_flush() -> Iterator[None]:
    """Rows are deleted after a test: PostgreSQL truncates by making new files, which takes longer.

    Foreign keys are looked at when the transaction ends, so the order does not matter.
    """
    if connection.vendor != "postgresql":
        yield
        return
    quote = connection.ops.quote_name

    def delete(_: Any, __: Any, tables: list[str], **___: Any) -> list[str]:
        return [f"DELETE FROM {quote(table)};" for table in tables]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(connection.ops), "sql_flush", delete)
        yield


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    """The process's model: says "Hello, world" to everything."""
    scripted = ScriptedEngine()
    yield from serving(scripted)


@pytest.fixture
def serve() -> Iterator[Callable[[ScriptedEngine], ScriptedEngine]]:
    """Makes a given engine the process's model."""
    made: list[ScriptedEngine] = []

    def use(scripted: ScriptedEngine) -> ScriptedEngine:
        made.append(scripted)
        host.serve_with(scripted)  # type: ignore[arg-type]
        return scripted

    yield use
    for scripted in made:
        scripted.gate.set()
    leave_nothing_running()


def serving(scripted: ScriptedEngine) -> Iterator[ScriptedEngine]:
    """Serve with this engine, and leave nothing running."""
    host.serve_with(scripted)  # type: ignore[arg-type]
    yield scripted
    scripted.gate.set()
    leave_nothing_running()


def leave_nothing_running() -> None:
    """As before the test: nothing is generated, recovered or drained."""
    supervisor.stop()
    supervisor.draining = False
    host.unload()


@pytest.fixture(scope="session")
def server_thread() -> ServerThread:
    """daphne on a free port, in this process, for the whole run."""
    thread = ServerThread()
    thread.start()
    return thread


@pytest.fixture
def server(server_thread: ServerThread, transactional_db: None) -> ServerThread:
    """The server over this test's database."""
    return server_thread


@pytest.fixture
def user(transactional_db: None) -> Any:
    """A person with an account."""
    return get_user_model().objects.create_user("ada", password="a long enough secret")


@pytest.fixture
def key(user: Any) -> str:
    """That person's API key."""
    return ApiKey.issue(user=user)[1]


@pytest.fixture
def client_for(server: ServerThread) -> Iterator[Callable[[str | None], httpx.Client]]:
    """HTTP clients that send a key, or none, over a real socket."""
    clients: list[httpx.Client] = []

    def make(secret: str | None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        client = httpx.Client(base_url=server.address, headers=headers, timeout=20)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def api(client_for: Callable[[str | None], httpx.Client], key: str) -> httpx.Client:
    """A client that is ada."""
    return client_for(key)


@pytest.fixture
def other(transactional_db: None) -> Any:
    """Somebody else."""
    return get_user_model().objects.create_user("bob", password="another long secret")


@pytest.fixture
def other_api(client_for: Callable[[str | None], httpx.Client], other: Any) -> httpx.Client:
    """A client that is bob."""
    return client_for(ApiKey.issue(user=other)[1])


@pytest.fixture
def gate() -> threading.Event:
    """Closed: pass it to a scripted engine to hold its answer back."""
    return threading.Event()


@pytest.fixture
def administrator(django_user_model: Any, transactional_db: None) -> Client:
    """A browser in which an administrator is signed in."""
    client = Client()
    client.force_login(django_user_model.objects.create_superuser("root", password="secret"))
    return client
