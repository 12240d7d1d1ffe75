"""Every answer names its request, and so do the log's lines about it."""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Iterator

import openai
import pytest

from chat import acceptance
from llmsite.request_ids import OfRequest
from tests.web import stream

NAME = "x-request-id"
MESSAGE = "/chat/new/message/"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", "/nothing", 404),
        ("POST", MESSAGE, 400),
        ("GET", "/healthz", 200),
        ("GET", "/static/chat/icon.svg", 200),
        ("GET", "/admin/", 302),
    ],
)
def test_the_callers_name_is_said_again(api, engine, method, path, status):
    answer = api.request(method, path, headers={NAME: "trace-1:a/b=c"})

    assert (answer.status_code, answer.headers[NAME]) == (status, "trace-1:a/b=c")


def test_who_names_nothing_gets_a_name_of_its_own_each_time(client_for):
    names = {client_for(None).get("/v1/models").headers[NAME] for _ in range(3)}

    assert len(names) == 3
    assert all(len(name) == 32 for name in names)


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "a\tb", "é", '"><b>'])
def test_a_name_that_is_no_short_token_is_not_taken(client_for, given):
    answer = client_for(None).get("/v1/models", headers={NAME: given.encode()})

    assert len(answer.headers[NAME]) == 32
    assert answer.headers[NAME] != given


def test_what_is_refused_before_its_body_is_here_has_a_name(api):
    answer = api.post(MESSAGE, content=b"x" * (2 << 20), headers={NAME: "mine"})

    assert (answer.status_code, answer.headers[NAME]) == (413, "mine")


def test_a_stream_has_one(api, engine):
    body = {"prompt": "Say it", "stream": True}
    with api.stream("POST", MESSAGE, json=body, headers={NAME: "mine"}) as answer:
        assert answer.headers[NAME] == "mine"
    assert stream(api, "POST", MESSAGE, json=body)[-1].name == "done"


def test_openais_client_shows_it(server):
    address = f"{server.address}/v1"
    with (
        openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.models.list(extra_headers={NAME: "mine"})

    assert refused.value.request_id == "mine"


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The log, in the form that the settings give it."""
    from django.conf import settings

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    written: list[str] = []
    kept = Kept()
    kept.addFilter(OfRequest())
    kept.setFormatter(logging.Formatter(settings.LOGGING["formatters"]["line"]["format"]))
    logging.getLogger().addHandler(kept)
    yield written
    logging.getLogger().removeHandler(kept)


def test_a_line_of_the_log_says_which_request_it_is_about(api, engine, lines, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(acceptance, "accept", broken)
    answer = api.post(MESSAGE, json={"prompt": "Hi"}, headers={NAME: "mine"})
    logging.getLogger("chat").warning("about nobody's request")

    assert answer.status_code == 500
    [failed] = [line for line in lines if "a mistake of ours" in line]
    assert " ERROR django.request [mine] Internal Server Error" in failed
    assert lines[-1].endswith(" WARNING chat about nobody's request")
