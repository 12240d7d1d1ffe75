"""What the load generator takes for an answer, asked of a real server through a real socket."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from bench.many.answers import Answer
from bench.many.jobs import Target
from bench.many.wires import ask
from tests.fakes import ScriptedEngine
from tests.web import ServerThread

TURNS = [{"role": "user", "content": "Say it"}]


def asked(server: ServerThread, key: str, wire: str) -> Answer:
    """One answer, as the bench gets it."""
    port = urlsplit(server.address).port
    return asyncio.run(ask(Target(port or 0, wire, "scripted-model", key), "talk", TURNS, 16))


@pytest.mark.parametrize("wire", ["openai", "own"])
def test_an_answer_is_all_of_its_text_piece_by_piece(server, key, engine, wire):
    answer = asked(server, key, wire)

    assert (answer.text, answer.trouble) == ("Hello, world", "")
    assert 0 < answer.seconds_to_first < 10
    assert all(gap >= 0 for gap in answer.gaps)


@pytest.mark.parametrize("wire", ["openai", "own"])
def test_what_is_refused_is_no_answer(server, engine, wire):
    assert asked(server, "no key", wire).trouble.startswith("status 401")


@pytest.mark.parametrize("wire", ["openai", "own"])
def test_what_fails_on_its_way_is_no_answer(server, key, serve, wire):
    serve(ScriptedEngine("Hello", "never", fail_at=1))

    assert "The engine died." in asked(server, key, wire).trouble


def test_a_server_that_is_not_there_is_no_answer():
    answer = asyncio.run(ask(Target(1, "own", "none"), "talk", TURNS, 16))

    assert answer.trouble.startswith("ConnectionRefusedError")
