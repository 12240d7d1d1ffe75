"""Settings: what stands in the environment arrives, and mistakes are named."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from llmsite.databases import database, sqlite_url
from llmsite.environment import Environment, kept_secret_key, made_private

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.parametrize(
    ("text", "names"), [("gpt-4o, org/model ", ["gpt-4o", "org/model"]), (" , ", []), ("", [])]
)
def test_names_in_a_list_may_have_spaces_between_them(monkeypatch, text, names):
    monkeypatch.setenv("LLMSITE_MODEL_ALIASES", text)

    assert Environment().list("LLMSITE_MODEL_ALIASES") == names


@pytest.mark.parametrize(("text", "seconds"), [("", 10.0), ("0", 0.0), ("2.5", 2.5)])
def test_a_duration_may_be_none(monkeypatch, text, seconds):
    monkeypatch.setenv("LLMSITE_DRAIN_SECONDS", text)

    assert Environment().seconds("LLMSITE_DRAIN_SECONDS", default=10.0) == seconds


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", []),
        ("*", ["*"]),
        (
            "https://chat.example.org, http://localhost:5173,http://[::1]:80",
            ["https://chat.example.org", "http://localhost:5173", "http://[::1]:80"],
        ),
    ],
)
def test_origins_are_as_a_browser_names_them(monkeypatch, text, origins):
    monkeypatch.setenv("LLMSITE_CORS_ORIGINS", text)

    assert Environment().origins("LLMSITE_CORS_ORIGINS") == origins


def test_names_of_the_server_and_its_pages_may_stand_for_many(monkeypatch):
    hosts, sites = "chat.example.org,.example.org,[::1],*", "https://*.example.org,http://a:81"
    monkeypatch.setenv("ALLOWED_HOSTS", hosts)
    monkeypatch.setenv("CSRF_TRUSTED_ORIGINS", sites)

    assert Environment().hosts("ALLOWED_HOSTS", default=[]) == hosts.split(",")
    assert Environment().sites("CSRF_TRUSTED_ORIGINS") == sites.split(",")


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


@pytest.mark.parametrize("folder", ["/srv/#1", "/srv/what?", "/srv/100%25", "/srv/a b;c", "var"])
def test_the_default_database_is_in_the_data_folder_whatever_that_is_called(folder):
    assert database(sqlite_url(Path(folder) / "llmsite.sqlite3"))["NAME"] == (
        f"{folder}/llmsite.sqlite3"
    )


def test_an_address_of_no_database_is_refused():
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL"):
        database("nonsense")


@pytest.mark.parametrize(
    "url",
    [
        "postgres://llmsite:hush/hush@db/llmsite",
        "postgres://llmsite:hush?1@db/llmsite",
        "postgres://llmsite:hush@db:99999/llmsite",
        "postgres://llmsite:hush@[::1/llmsite",
    ],
)
def test_an_address_that_cannot_be_read_is_refused_and_its_password_stays_unsaid(url):
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL cannot be read") as refused:
        database(url)

    assert "hush" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_a_password_of_odd_characters_is_read_where_they_are_escaped():
    escaped = "%3A%2F%3F%23%5B%5D%40%25"

    assert database(f"postgres://llmsite:{escaped}@db/llmsite")["PASSWORD"] == ":/?#[]@%"


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite://:memory:", "sqlite://a.sqlite3", "sqlite://var/a"]
)
def test_a_sqlite_that_is_no_file_is_refused(url):
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL names no file"):
        database(url)


def test_a_database_that_is_not_supported_is_refused():
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL"):
        database("mysql://db/llmsite")


def test_what_the_address_says_about_its_connection_holds():
    options = database("postgres://db/llmsite?sslmode=verify-full&sslrootcert=/ca.pem")["OPTIONS"]

    assert (options["sslmode"], options["sslrootcert"]) == ("verify-full", "/ca.pem")
    assert options["pool"]["max_size"] == 10
    assert database("sqlite:////tmp/a.sqlite3?timeout=5")["OPTIONS"]["timeout"] == 5


def test_a_pool_looks_for_its_database_again_as_often_as_somebody_gives_up_waiting():
    pool = database("postgres://db/llmsite")["OPTIONS"]["pool"]

    assert pool["reconnect_timeout"] == pool["timeout"]


def test_a_pool_has_one_setting_and_no_other():
    with pytest.raises(ImproperlyConfigured, match="LLMSITE_DATABASE_POOL"):
        database("postgres://db/llmsite?pool=false")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIME_ZONE", "Mars/X"),
        ("DEBUG", "ture"),
        ("LLMSITE_HTTPS", "perhaps"),
        ("LLMSITE_DTYPE", "fp8"),
        ("LLMSITE_QUANTIZE", "int3"),
        ("LLMSITE_PREFIX_SHARING", "all"),
        ("LLMSITE_SPECULATION", "yes"),
        ("LLMSITE_CACHE_TOKENS", "-5"),
        ("LLMSITE_DATABASE_POOL", "0"),
        ("LLMSITE_LOGIN_FAILURES", "0"),
        ("ALLOWED_HOSTS", "http://chat.example.org"),
        ("ALLOWED_HOSTS", "chat.example.org:8000"),
        ("ALLOWED_HOSTS", "[::1]:8000"),
        ("ALLOWED_HOSTS", "::1"),
        ("CSRF_TRUSTED_ORIGINS", "chat.example.org"),
        ("CSRF_TRUSTED_ORIGINS", "https://chat.example.org/"),
        ("CSRF_TRUSTED_ORIGINS", "https://Chat.example.org"),
        ("CSRF_TRUSTED_ORIGINS", "*"),
        ("LLMSITE_DATA", "/dev/null/x"),
        ("LLMSITE_DATA", "~nobody-of-this-name/x"),
        ("LLMSITE_CORS_ORIGINS", "chat.example.org"),
        ("LLMSITE_CORS_ORIGINS", "https://chat.example.org/"),
        ("LLMSITE_CORS_ORIGINS", "https://*.example.org"),
        ("LLMSITE_CORS_ORIGINS", "*, https://chat.example.org"),
        ("LLMSITE_CORS_ORIGINS", "null"),
    ],
)
def test_nonsense_is_a_sentence_that_names_the_variable(name, value):
    said = manage("check", **{name: value})

    assert said.returncode != 0
    [sentence] = said.stderr.strip().splitlines()
    assert sentence.startswith(name)
    assert sentence.endswith("See docs/configuration.md.")


def test_a_home_that_no_shell_has_put_in_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LLMSITE_CACHE", "~/cache")

    assert Environment().path("LLMSITE_CACHE") == str(tmp_path / "cache")


def test_empty_is_left_out():
    ours = ("LLMSITE_DTYPE", "LLMSITE_PREFIX_SHARING", "LLMSITE_CACHE_TOKENS")
    said = manage("check", **dict.fromkeys(["TIME_ZONE", "DEBUG", *ours], ""))

    assert (said.returncode, said.stderr) == (0, "")


def test_a_misspelt_variable_is_noticed():
    said = manage("check", LLMSITE_MODLE="demo", LLMSITE_FOO="1", LLMSITE_DATABASE_POOL="5")

    assert said.returncode == 0
    assert "LLMSITE_MODLE is set, and there is no such setting" in said.stderr
    assert "LLMSITE_MODEL was meant?" in said.stderr
    assert said.stderr.count("was meant?") == 1, "nothing is like FOO"
    assert "POOL" not in said.stderr


def test_with_https_everything_is_ready_for_deployment():
    said = manage("check", "--deploy", LLMSITE_HTTPS="true")

    assert (said.returncode, said.stderr) == (0, "")


PLAIN = """
from django.test import Client
print([Client(HTTP_HOST="localhost").get(path).status_code for path in ("/metrics", "/v1/models")])
"""


def test_where_a_proxy_ends_tls_prometheus_still_asks_the_process_itself():
    said = manage("shell", "--no-imports", "-c", PLAIN, LLMSITE_HTTPS="true")

    assert said.stdout.strip() == "[401, 301]", said.stderr


def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of manage.py under these variables."""
    return subprocess.run(
        [sys.executable, ROOT / "manage.py", *arguments],
        env={**os.environ, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_of_two_processes_that_start_at_once_both_have_the_first_ones_key(tmp_path, monkeypatch):
    file = tmp_path / "secret_key"

    def while_another_was_faster() -> str:
        file.write_text("theirs")
        return "ours"

    monkeypatch.setattr("llmsite.environment.get_random_secret_key", while_another_was_faster)

    assert kept_secret_key(file) == "theirs"
    assert [one.name for one in tmp_path.iterdir()] == ["secret_key"]


def test_the_data_are_their_owners_alone(tmp_path):
    folder = tmp_path / "data"
    made_private(folder, "LLMSITE_DATA")

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
