"""The programs under examples/: each against a real server, cut, restarted and refused."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cutting_proxy import CuttingProxy
from tests.e2e.canned import RESPONSE, SILENCE, canned, event, refusal, stream
from tests.e2e.deployed import Deployed
from tests.e2e.programs import LANGUAGES, Missing, Program, ended, leave, program
from tests.torture import proxy
from tests.torture.proxy import Cut, How
from tests.witness import witness_text

pytestmark = pytest.mark.timeout(400)  # the first test compiles the programs

NAME = "世界👋"
ACCEPTED = event("accepted", 0, conversation="1eb4caec")
DONE = event("done", 12, finish_reason="stop")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Program | str]:
    """The program in each language, ready to run, or why it cannot be."""
    found: dict[str, Program | str] = {}
    for language in LANGUAGES:
        try:
            found[language] = program(language, tmp_path_factory.mktemp(language))
        except Missing as reason:
            found[language] = str(reason)
    return found


@pytest.fixture(params=LANGUAGES)
def client(request: pytest.FixtureRequest, programs: dict[str, Program | str]) -> Program:
    """One of them."""
    found = programs[request.param]
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def clients(programs: dict[str, Program | str]) -> list[Program]:
    """All that can be run, for what takes its time."""
    return [found for found in programs.values() if isinstance(found, Program)]


@pytest.fixture(scope="module")
def running(
    template: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    """One server for all that leave it alone."""
    data = tmp_path_factory.mktemp("running")
    shutil.copytree(template[0], data, dirs_exist_ok=True)
    server = Deployed("serve", data, template[1], drain=0)
    yield server
    server.kill()


def whole(text: str, words: int) -> bool:
    """Whether this is the witness's answer of so many words."""
    seed = re.match(rf"{NAME}:(-?\d+):0", text)
    return bool(seed) and text == witness_text(NAME, int(seed[1]), words)


def test_run_as_it_says_it_prints_the_answer_that_the_row_has(client, running):
    done = client.run(
        f"{NAME} 12", url=f"{running.address}/", key=running.key, command=client.command
    )

    assert (done.status, done.err) == (0, "")
    assert whole(done.out.rstrip(), 12)
    assert ("done", done.out.rstrip()) in running.rows()


def test_cut_at_many_places_it_loses_and_repeats_nothing(client, running):
    before = len(running.rows())
    way = proxy.CuttingProxy(urlsplit(running.address).port or 0)
    # Before anything came, in the head, in the event that names the response, and behind that.
    chance = random.Random(client.command[-1])
    places = [1, 400, *(chance.randrange(1000, 3000) for _ in range(4))]
    way.cuts = [Cut(at, how) for at, how in zip(places, [*How] * 2, strict=True)]
    try:
        done = client.run(f"{NAME} 60", url=way.address, key=running.key)
    finally:
        way.close()

    assert (done.status, way.made >= 5) == (0, True), done.err
    assert whole(done.out.rstrip(), 60), done
    assert ("done", done.out.rstrip()) in running.rows()
    assert len(running.rows()) == before + 1


def test_asked_again_under_its_name_it_gets_the_same_answer(client, running):
    before = len(running.rows())
    name = f"order {client.command[-1]}"
    first, again = (
        client.run(f"{NAME} 3", name, url=running.address, key=running.key) for _ in range(2)
    )

    assert (first.status, again) == (0, first)
    assert len(running.rows()) == before + 1


def test_what_is_refused_is_said_with_its_field(client, running):
    name = f"reused {client.command[-1]}"
    client.run(f"{NAME} 1", name, url=running.address, key=running.key)
    before = len(running.rows())
    refused = {
        "prompt: ": client.run("", url=running.address, key=running.key),
        "401": client.run(f"{NAME} 1", url=running.address, key="llms_wrong"),
        "idempotency key": client.run(f"{NAME} 2", name, url=running.address, key=running.key),
    }

    for said, done in refused.items():
        assert (done.status, done.out.strip(), said in done.err) == (2, "", True), done
        assert "again in" not in done.err, "it was refused for good"
    assert len(running.rows()) == before


def test_a_server_that_was_killed_is_waited_for(deploy, clients):
    first = deploy("serve", drain=0)
    way = CuttingProxy(first.address)
    with ExitStack() as stack:
        stack.callback(way.close)
        asking = [each.start(f"{NAME} 60", url=way.address, key=first.key) for each in clients]
        for process in asking:
            stack.callback(leave, process)
        begun = [process.stdout.read(1) for process in asking]
        way.fail()
        first.kill()
        second = deploy("serve", drain=0)
        way.lead_to(second.address)
        way.recover()
        done = [ended(process, already) for process, already in zip(asking, begun, strict=True)]

    assert [each.status for each in done] == [0] * len(clients), done
    assert [each.out for each in done if not whole(each.out.rstrip(), 60)] == []
    assert sorted(second.rows()) == sorted(("done", each.out.rstrip()) for each in done)


def test_it_reads_any_stream_that_the_standard_allows(client):
    piece = event("", 6, text="世界\n👋\t\"\\'").replace(b"\n\n", b"\n: a comment\n\n")
    several = f"""id: {RESPONSE}:9
data:{{"text": "🙂\\u0085é",
data: "message_id": "…"}}

""".encode()
    strange = b"event: of tomorrow\nretry: 10\nnonsense\n: data: no\ndata: {not JSON\n\n"
    text = b": hello\n\n" + ACCEPTED + strange + piece + several + strange + DONE
    with canned(stream(text.replace(b"\n", b"\r\n"), step=1)) as server:
        done = client.run("Hi", url=server.address, key="k")

    assert (done.status, done.out, done.err) == (0, "世界\n👋\t\"\\'🙂\x85é\n", "")


@pytest.mark.parametrize("whole", [True, False], ids=["closed", "torn"])
@pytest.mark.parametrize(
    "left", ["\n", "}\n\n", "\udc95\udc8c"], ids=["line", "event", "character"]
)
def test_an_event_that_was_cut_off_is_nothing(client, left, whole):
    piece = event("", 10, text=", 世界")
    half = piece[: piece.rindex(left.encode(errors="surrogateescape"))]
    begun = stream(ACCEPTED + event("", 5, text="Hello") + half, whole=whole)
    rest = stream(event("accepted", 5) + event("", 10, text=", 世界") + DONE)
    with canned(begun, rest) as server:
        done = client.run("Hi", url=server.address, key="k")

    assert (done.status, done.out) == (0, "Hello, 世界\n")
    asked, came_back = server.heard
    assert asked.line.startswith("POST /chat/new/message/ ")
    assert came_back.line.startswith(f"GET /api/responses/{RESPONSE}/events?after=5 ")


def test_a_connection_that_says_nothing_is_left(clients):
    begun = stream(ACCEPTED + event("", 5, text="Hello"), whole=False)
    rest = stream(event("accepted", 5) + DONE)
    with ExitStack() as stack:
        servers = [stack.enter_context(canned([SILENCE], [*begun, SILENCE], rest)) for _ in clients]
        asking = [
            each.start("Hi", url=server.address, key="k")
            for each, server in zip(clients, servers, strict=True)
        ]
        for process in asking:
            stack.callback(leave, process)
        done = [ended(process) for process in asking]

    assert [(each.status, each.out) for each in done] == [(0, "Hello\n")] * len(clients), done
    assert [len(server.heard) for server in servers] == [3] * len(clients)


def test_it_waits_as_long_as_it_is_told_and_keeps_its_name(client):
    busy = [refusal(429, "Retry-After: 1"), refusal(503, "Retry-After: 0"), refusal(409)]
    with canned(*busy, stream(ACCEPTED + DONE)) as server:
        done = client.run('Say\n"世界\\" 👋', url=server.address, key="k")

    assert (done.status, done.out) == (0, "\n")
    assert server.heard[1].at - server.heard[0].at >= 1
    names = {
        re.search(r"(?i)\r\nIdempotency-Key: (\S+)\r\n", each.text)[1] for each in server.heard
    }
    assert len(names) == 1
    for each in server.heard:
        body = each.text.partition("\r\n\r\n")[2]
        assert json.loads(body) == {"prompt": 'Say\n"世界\\" 👋', "stream": True}


def test_a_response_that_failed_is_said(client):
    failed = event("error", 5, code="generation_failed", detail="The engine died.")
    with canned(stream(ACCEPTED + event("", 5, text="Hello") + failed)) as server:
        done = client.run("Hi", url=server.address, key="k")

    assert (done.status, done.out.strip(), "The engine died." in done.err) == (1, "Hello", True)
    assert len(server.heard) == 1


def test_it_comes_back_where_only_the_stream_failed(client):
    failed = event("error", 5, code="internal_error", detail="Something went wrong.")
    failed = failed.replace(f"id: {RESPONSE}:5\n".encode(), b"")
    begun = stream(ACCEPTED + event("", 5, text="Hello") + failed)
    with canned(begun, stream(event("accepted", 5) + DONE)) as server:
        done = client.run("Hi", url=server.address, key="k")

    assert (done.status, done.out) == (0, "Hello\n")
    assert "after=5" in server.heard[1].line


def test_a_server_that_stays_away_is_given_up(client):
    with canned(refusal(503, "Retry-After: 0"), refusal(503, "Retry-After: 601")) as server:
        done = client.run("Hi", "my name", url=server.address, key="k")

    assert (done.status, len(server.heard)) == (1, 2)
    assert "my name" in done.err.splitlines()[-1]
