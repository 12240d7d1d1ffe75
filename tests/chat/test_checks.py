"""There is a system check for each way to misconfigure what the service relies on."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks
from django.db import connection


def found() -> set[str]:
    """The ids of our checks that complain."""
    return {message.id for message in run_checks() if message.id.startswith("chat.")}


def test_the_settings_as_they_are_are_right():
    assert found() == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LLMSITE_TEMPERATURE", -0.1),
        ("LLMSITE_TEMPERATURE", 2.5),
        ("LLMSITE_TEMPERATURE", float("nan")),
        ("LLMSITE_TOP_P", 0.0),
        ("LLMSITE_TOP_P", 1.5),
        ("LLMSITE_ENGINE_PATIENCE", 0.0),
        ("LLMSITE_MAX_REQUESTS", 0),
        ("LLMSITE_MAX_REQUESTS_PER_CALLER", 0),
        ("LLMSITE_MAX_QUEUED_TOKENS", 0),
        ("LLMSITE_MAX_TOKENS_PER_CALLER", 0),
        ("LLMSITE_EVENTS_PER_SECOND", 0.0),
        ("LLMSITE_MAX_BODY", 10),
        ("LLMSITE_BODY_SECONDS", 0.0),
    ],
)
def test_defaults_out_of_range_are_found(settings, name, value):
    setattr(settings, name, value)

    assert found() == {"chat.E004"}


@pytest.mark.parametrize(
    ("name", "value", "check"),
    [
        ("ATOMIC_REQUESTS", True, "chat.E001"),
        ("CONN_MAX_AGE", 60, "chat.E003"),
        ("CONN_MAX_AGE", None, "chat.E003"),
    ],
)
def test_a_database_that_is_not_for_streams_is_found(monkeypatch, name, value, check):
    monkeypatch.setitem(connection.settings_dict, name, value)

    assert found() == {check}


@pytest.mark.skipif(connection.vendor != "sqlite", reason="about SQLite")
@pytest.mark.parametrize("options", [{}, {"transaction_mode": "DEFERRED"}])
def test_a_sqlite_that_does_not_take_turns_is_found(monkeypatch, options):
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)

    assert found() == {"chat.E002"}
