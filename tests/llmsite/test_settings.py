"""Settings: what stands in the environment arrives, and mistakes are named."""

from __future__ import annotations

import stat

import pytest
from django.core.exceptions import ImproperlyConfigured

from llmsite.environment import Environment, kept_secret_key
from llmsite.settings import database


def test_a_text_may_begin_with_a_dollar(monkeypatch):
    monkeypatch.setenv("LLMSITE_SYSTEM", "$5 menu bot")

    assert Environment().str("LLMSITE_SYSTEM") == "$5 menu bot"


@pytest.mark.parametrize("kind", ["int", "float"])
def test_what_is_no_number_is_named(monkeypatch, kind):
    monkeypatch.setenv("LLMSITE_MAX_BODY", "many")

    with pytest.raises(ImproperlyConfigured, match="LLMSITE_MAX_BODY is 'many'"):
        getattr(Environment(), kind)("LLMSITE_MAX_BODY")


@pytest.mark.parametrize("text", ["-1", "inf", "nan", "1e12"])
def test_what_is_no_duration_is_named(monkeypatch, text):
    monkeypatch.setenv("LLMSITE_DRAIN_SECONDS", text)

    with pytest.raises(ImproperlyConfigured, match="LLMSITE_DRAIN_SECONDS is"):
        Environment().seconds("LLMSITE_DRAIN_SECONDS")


@pytest.mark.parametrize(("text", "seconds"), [("", 10.0), ("0", 0.0), ("2.5", 2.5)])
def test_a_duration_may_be_none(monkeypatch, text, seconds):
    monkeypatch.setenv("LLMSITE_DRAIN_SECONDS", text)

    assert Environment().seconds("LLMSITE_DRAIN_SECONDS", default=10.0) == seconds


def test_the_secret_key_is_made_once_and_private(tmp_path):
    file = tmp_path / "secret_key"

    first, second = kept_secret_key(file), kept_secret_key(file)

    assert first == second
    assert len(first) >= 50
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_an_empty_secret_key_is_refused(tmp_path):
    (tmp_path / "secret_key").touch()

    with pytest.raises(ImproperlyConfigured, match="secret_key is empty"):
        kept_secret_key(tmp_path / "secret_key")


def test_an_address_of_no_database_is_refused():
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL"):
        database("nonsense")


def test_a_database_that_is_not_supported_is_refused():
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL"):
        database("mysql://db/llmsite")


def test_what_the_address_says_about_its_connection_holds():
    options = database("postgres://db/llmsite?sslmode=verify-full&sslrootcert=/ca.pem")["OPTIONS"]

    assert (options["sslmode"], options["sslrootcert"]) == ("verify-full", "/ca.pem")
    assert options["pool"]["max_size"] == 10
    assert database("sqlite:////tmp/a.sqlite3?timeout=5")["OPTIONS"]["timeout"] == 5
