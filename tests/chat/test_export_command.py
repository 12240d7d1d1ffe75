"""`manage.py export`: the log on stdout or in a new file, chosen by the log's filters."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from chat.models import Verdict
from tests.chat.rows import answered


def export(*arguments: str) -> list[Any]:
    """The lines on stdout, read."""
    out = io.StringIO()
    call_command("export", *arguments, stdout=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def texts(*arguments: str) -> list[str]:
    """What they say."""
    return [line["response"]["text"] for line in export(*arguments)]


def test_all_of_it_is_printed_with_verdicts(user, other):
    Verdict.objects.create(response=answered(user, "mine"), reviewer=other, value="good")
    answered(other, "theirs")

    first, second = export()
    assert (first["user"], first["verdicts"][0]["reviewer"]) == ("ada", "bob")
    assert (second["user"], second["verdicts"]) == ("bob", [])


def test_filters_choose_as_they_do_elsewhere(user, other):
    old = answered(user, "old", created_at=timezone.now() - timedelta(days=9))
    theirs = answered(other, "theirs", status="stopped")
    Verdict.objects.create(response=old, reviewer=other, value="bad")
    since = (timezone.now() - timedelta(days=1)).isoformat()

    assert texts("--user", "bob") == ["theirs"]
    assert texts("--since", since) == ["theirs"]
    assert texts("--until", since) == ["old"]
    assert texts("--status", "stopped") == ["theirs"]
    assert texts("--search", "hi OLD") == ["old"]
    assert texts("--verdict", "bad") == ["old"]
    assert texts("--verdict", "none") == ["theirs"]
    assert texts("--conversation", str(theirs.prompt.conversation_id)) == ["theirs"]
    assert texts("--user", "nobody") == []


def test_paths_end_once(user):
    first = answered(user, "one")
    answered(user, "two", conversation=first.prompt.conversation, follows=first)

    [line] = export("--format", "conversations", "--paths")
    assert [said["content"] for said in line["conversations"]] == ["Hi", "one", "Hi", "two"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--since", "yesterday"], "--since: Enter a valid date/time."),
        (["--conversation", "1"], "--conversation: Enter a valid UUID."),
        (["--format", "xml"], "--format"),
        (["--verdict", "fine"], "--verdict"),
    ],
)
def test_nonsense_is_refused_with_the_options_name(db, arguments, sentence):
    with pytest.raises(CommandError, match=sentence):
        export(*arguments)


def test_a_file_is_readable_by_its_maker_only(user, tmp_path, capsys):
    answered(user, "mine")
    path = tmp_path / "log.jsonl"
    assert export("--output", str(path)) == []

    assert json.loads(path.read_text())["response"]["text"] == "mine"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert capsys.readouterr().err == f"1 responses in {path}.\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_there_stays_as_it_is(user, tmp_path):
    answered(user, "mine")
    path = tmp_path / "log.jsonl"
    path.write_text("kept")

    with pytest.raises(CommandError, match="There is such a file already"):
        export("--output", str(path))
    assert path.read_text() == "kept"


def test_a_file_that_cannot_be_is_a_sentence(user, tmp_path):
    with pytest.raises(CommandError, match="No such file or directory"):
        export("--output", str(tmp_path / "nowhere" / "log.jsonl"))


def test_half_a_file_never_has_the_name(user, tmp_path, monkeypatch):
    answered(user, "mine")

    def broken(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("chat.log.exports.line", broken)
    with pytest.raises(CommandError, match="No space left"):
        export("--output", str(tmp_path / "log.jsonl"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing_of_a_file_that_is_not_whole(tmp_path, ending):
    folder = tmp_path / "logs"
    folder.mkdir()
    script = (
        "import os, pathlib, sys; import django; django.setup();"
        "from chat.management.commands.export import write;"
        "ended = (os.kill(os.getpid(), int(sys.argv[2])) for _ in [1]);"
        "write((line for line in ended if line), pathlib.Path(sys.argv[1]))"
    )
    names = {"DJANGO_SETTINGS_MODULE": "llmsite.settings", "LLMSITE_DATA": str(tmp_path / "data")}
    command = [sys.executable, "-c", script, str(folder / "log.jsonl"), str(int(ending))]
    done = subprocess.run(
        command, check=False, env={**os.environ, **names}, stderr=subprocess.DEVNULL
    )

    assert done.returncode != 0
    assert list(folder.iterdir()) == []


def test_who_reads_only_the_beginning_is_no_error(user):
    answered(user, "mine")
    reader, writer = os.pipe()
    os.close(reader)

    with os.fdopen(writer, "w") as pipe:
        call_command("export", stdout=pipe)


def test_a_full_disk_behind_stdout_is_a_sentence(user):
    answered(user, "mine")

    with Path("/dev/full").open("w") as full, pytest.raises(CommandError, match="No space left"):
        call_command("export", stdout=full)


def test_json_is_utf_8_whatever_the_terminal_speaks(user, tmp_path):
    answered(user, "漢字 é")
    printed = io.BytesIO()
    with io.TextIOWrapper(printed, encoding="ascii") as terminal:
        call_command("export", stdout=terminal)
        assert "漢字 é" in printed.getvalue().decode()

    path = tmp_path / "log.jsonl"
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    script = (
        "import pathlib, sys; import django; django.setup();"
        "from chat.management.commands.export import write;"
        "write(['\\u6f22'], pathlib.Path(sys.argv[1]))"
    )
    names = {"DJANGO_SETTINGS_MODULE": "llmsite.settings", "LLMSITE_DATA": str(tmp_path / "data")}
    command = [sys.executable, "-c", script, str(path)]
    subprocess.run(command, check=True, env={**os.environ, **names, **ascii_only})
    assert path.read_bytes().decode() == "漢"


def test_an_empty_option_is_not_everybodys_log(user):
    answered(user, "mine")

    with pytest.raises(CommandError, match="--user: A value is required"):
        export("--user", "")
