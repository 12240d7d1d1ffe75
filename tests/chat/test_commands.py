"""`manage.py createkey`, `ask` and `serve`."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection

from chat.management.commands import serve as serving
from chat.models import ApiKey, Response
from tests.fakes import ScriptedEngine


def createkey(*arguments: str) -> tuple[str, str]:
    """Run it: stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    call_command("createkey", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_createkey_prints_the_key_alone_and_makes_the_user(client_for):
    out, err = createkey("grace", "--name", "laptop")

    [secret] = out.splitlines()
    assert "grace" in err
    assert client_for(secret).get("/api/conversations/").status_code == 200
    row = ApiKey.objects.get()
    assert (row.name, row.user.username, row.user.is_staff) == ("laptop", "grace", False)
    assert not row.user.has_usable_password()


def test_createkey_uses_the_user_that_exists(user):
    out, err = createkey("ada")

    assert out.startswith("llms_")
    assert err == ""
    assert ApiKey.objects.get().user == user


@pytest.mark.parametrize(
    "arguments", [[""], ["  "], ["x" * 151], ["ada", "--name", ""], ["ada", "--name", "x" * 101]]
)
def test_createkey_refuses_names_that_are_none(db, arguments):
    with pytest.raises(CommandError):
        createkey(*arguments)
    assert not get_user_model().objects.exists()


def ask(*arguments: str) -> str:
    """Run it: stdout."""
    out = io.StringIO()
    call_command("ask", *arguments, stdout=out)
    return out.getvalue()


def test_ask_streams_the_answer_and_stores_it(transactional_db, engine):
    assert ask("Say it", "--max-tokens", "5", "--seed", "7") == "Hello\n"

    row = Response.objects.get()
    assert (row.text, row.status, row.surface) == ("Hello", "done", "ask")
    assert (row.user.username, row.seed, row.max_tokens) == ("terminal", 7, 5)


def test_ask_in_anothers_name(user, engine):
    ask("Say it", "--user", "ada")
    assert Response.objects.get().user == user


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["  "], "empty"),
        (["a\udc80b"], "surrogates"),
        (["a", "--temperature", "3"], "temperature"),
        (["a", "--user", ""], "user name"),
        (["a", "--user", "a b"], "user name"),
        (["a", "--user", "x" * 151], "user name"),
        (["a", "--temperature", "nan"], "temperature"),
        (["a", "--max-tokens", "0"], "max_tokens"),
        (["a", "--seed", str(1 << 63)], "seed"),
    ],
)
def test_ask_refuses_with_a_sentence(transactional_db, engine, arguments, sentence):
    with pytest.raises(CommandError, match=sentence):
        ask(*arguments)
    assert not Response.objects.exists()


def test_ask_says_why_an_answer_broke_off(transactional_db, serve):
    serve(ScriptedEngine("Hel", "lo", fail_at=1))
    with pytest.raises(CommandError, match="The engine died"):
        ask("Say it")
    assert Response.objects.get().status == "failed"


def test_serve_says_that_its_port_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"127.0.0.1:{port} cannot be used"):
            serving.refuse_taken_port("127.0.0.1", port)
    serving.refuse_taken_port("127.0.0.1", port)


def test_serve_refuses_an_address_that_is_not_here():
    with pytest.raises(CommandError, match="Set PORT or HOST"):
        serving.refuse_taken_port("203.0.113.1", 8000)


def first_account() -> tuple[str | None, str]:
    """Make the first account: the key, and what was printed."""
    out = io.StringIO()
    command = serving.Command(stdout=out)
    return command._first_account(), out.getvalue()


def test_serve_makes_the_first_account_once(client, client_for):
    key, printed = first_account()
    assert first_account() == (None, "")

    password = printed.split("password")[1].split()[0]
    assert key in printed
    assert client.post("/login/", {"username": "admin", "password": password}).status_code == 302
    assert client.get("/admin/chat/response/").status_code == 200
    assert client_for(key).get("/api/conversations/").status_code == 200
    assert get_user_model().objects.count() == ApiKey.objects.count() == 1


def test_serve_makes_an_administrator_though_somebody_has_the_name(db):
    get_user_model().objects.create_user("admin")
    get_user_model().objects.create_user("terminal")
    _, printed = first_account()

    assert "Created the user admin2" in printed
    assert get_user_model().objects.get(is_superuser=True).username == "admin2"


def test_serve_prints_a_command_that_can_be_pasted():
    line = serving.try_line("http://127.0.0.1:8000", "llms_key")

    assert line.startswith("curl http://127.0.0.1:8000/chat/new/message/ ")
    assert '-H "Authorization: Bearer llms_key"' in line  # a shell variable works there, too
    assert """-d '{"prompt": "What is the capital of France?"}'""" in line


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_an_address_shows_its_host_as_browsers_want_it(host, shown):
    assert serving.displayed(host) == shown


def test_serve_may_have_more_clients_than_the_usual_soft_limit_allows():
    """In a process of its own: a hard limit that is lowered stays so."""
    lines = (
        "import resource",
        "from chat.management.commands.serve import allow_many_connections as allow",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 3000))",
        "allow()",
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))",
    )
    code = "import django; django.setup();" + ";".join(lines)
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "llmsite.settings"}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "(3000, 3000)"


def test_createkey_finds_a_user_by_another_spelling_of_the_name(user):
    out, err = createkey("ａｄａ")  # full-width; Django keeps names in NFKC

    assert out.startswith("llms_")
    assert (err, ApiKey.objects.get().user) == ("", user)


@pytest.mark.parametrize("name", ["a\x01b", "../x", "a b", "\udcff"])
def test_createkey_makes_no_user_that_the_admin_would_refuse(db, name):
    with pytest.raises(CommandError, match="user name"):
        createkey(name)


def test_an_account_that_could_not_be_shown_is_not_there(db):
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        serving.Command(stdout=Full())._first_account()
    assert not get_user_model().objects.exists()


def test_ask_finds_a_user_by_another_spelling_of_the_name(user, engine):
    ask("Say it", "--user", "ａｄａ")
    assert Response.objects.get().user == user


def test_ask_says_that_the_disk_is_full(transactional_db, engine, settings):
    settings.LLMSITE_DISK_RESERVE = 1 << 62
    if connection.vendor == "sqlite":
        with pytest.raises(CommandError, match="disk is nearly full"):
            ask("Say it")
    else:
        assert ask("Say it") == "Hello, world\n", "another machine's disk"
