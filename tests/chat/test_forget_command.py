"""`manage.py forget`: one person's conversations, or those of long ago, out of the log for good."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from chat import responses
from chat.log import retention
from chat.log.retention import RetentionFilter, forget
from chat.models import Conversation, Response, Verdict
from tests.chat.rows import answered, ask
from tests.web import eventually

LONG_AGO = timezone.now() - timedelta(days=400)
A_YEAR_AGO = (timezone.now() - timedelta(days=365)).isoformat()


def told(*arguments: str) -> str:
    """What the command says."""
    out = io.StringIO()
    call_command("forget", *arguments, stdout=out)
    return out.getvalue()


def old(user, text: str, **columns) -> Response:
    """A conversation in which nothing was asked for more than a year."""
    conversation = Conversation.objects.create(user=user, title=text, created_at=LONG_AGO)
    return answered(user, text, conversation=conversation, created_at=LONG_AGO, **columns)


def tables_with(word: str) -> set[str]:
    """In whose rows it stands."""
    return {
        model.__name__
        for model in apps.get_models()
        if any(word in str(row) for row in model._base_manager.values())
    }


def texts() -> set[str]:
    """What is left."""
    return set(Response.objects.values_list("text", flat=True))


def test_all_of_one_person_goes_and_the_person_stays(user, other):
    first = answered(user, "one")
    answered(user, "two", conversation=first.prompt.conversation, follows=first)
    answered(other, "theirs")

    said = told("--user", "ada", "--yes")
    assert said == "Conversations: 1, with 2 responses.\nRemoved: 1.\n"
    assert texts() == {"theirs"}
    user.refresh_from_db()


def test_what_was_not_used_for_long_goes(user):
    gone = old(user, "gone")
    kept = old(user, "still used")
    answered(user, "yesterday", conversation=kept.prompt.conversation, follows=kept)
    answered(user, "new")
    Conversation.objects.create(user=user, title="empty", created_at=LONG_AGO)

    assert told("--unused-since", A_YEAR_AGO, "--yes").endswith("Removed: 2.\n")
    assert texts() == {"still used", "yesterday", "new"}
    assert not Conversation.objects.filter(pk=gone.prompt.conversation_id).exists()


def test_options_choose_together(user, other):
    old(user, "mine")
    old(other, "theirs")
    answered(user, "new")
    told("--user", "ada", "--unused-since", A_YEAR_AGO, "--yes")

    assert texts() == {"theirs", "new"}


def test_one_conversation_goes(user):
    row = answered(user, "one")
    answered(user, "two")
    told("--conversation", str(row.prompt.conversation_id), "--yes")

    assert texts() == {"two"}


def test_more_than_are_looked_for_at_once_go(user, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 2)
    for number in range(5):
        answered(user, str(number))

    assert told("--user", "ada", "--yes").endswith("Removed: 5.\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Say which: --user, --conversation or --unused-since."),
        (["--yes"], "Say which"),
        (["--user", ""], "--user: A value is required."),
        (["--unused-since", ""], "--unused-since: A value is required."),
        (["--unused-since", "yesterday"], "--unused-since: Enter a valid date/time."),
        (["--conversation", "1"], "--conversation: Enter a valid UUID."),
        (["--user", "ada"], "Nobody can be asked here; --yes removes them."),
    ],
)
def test_nothing_goes_unless_it_is_clear_what_and_that_it_shall(user, arguments, sentence):
    answered(user, "one")
    with pytest.raises(CommandError, match=sentence):
        told(*arguments)

    assert texts() == {"one"}


@pytest.mark.parametrize(("answer", "left"), [("y", set()), ("no", {"one"}), ("", {"one"})])
def test_whoever_sits_at_a_terminal_is_asked(user, monkeypatch, answer, left):
    answered(user, "one")
    terminal = io.StringIO(f"{answer}\n")
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    told("--user", "ada")

    assert texts() == left


def test_nobody_has_anything(user):
    assert told("--user", "nobody") == "Conversations: 0, with 0 responses.\n"


def test_what_is_asked_just_then_keeps_its_conversation(user, engine, monkeypatch):
    row = old(user, "old")
    conversation = row.prompt.conversation
    remove = responses.remove

    def after_somebody_asked(*arguments, **options):
        ask(user, "Hi", conversation=conversation)
        return remove(*arguments, **options)

    monkeypatch.setattr(responses, "remove", after_somebody_asked)
    rows = RetentionFilter({"unused_since": A_YEAR_AGO}, Conversation.objects.all()).qs

    assert list(forget(rows)) == []
    assert "old" in texts()


def test_an_answer_under_way_ends(user, turnstile):
    accepted = ask(user, "Hi")
    told("--user", "ada", "--yes")

    assert eventually(lambda: accepted.live.ended)
    assert texts() == set()


def test_no_word_of_it_is_left_in_any_table(administrator, user, api, engine):
    asked = {"role": "user", "content": "canary in a history"}
    body = {"prompt": "canary in a prompt", "history": [asked, {**asked, "role": "assistant"}]}
    answer = api.post("/chat/new/message/", json=body, headers={"Idempotency-Key": "canary"}).json()
    row = Response.objects.get(pk=answer["message_id"])
    Conversation.objects.update(title="canary in a title", system="canary in a persona")
    Response.objects.update(text="canary in an answer", client={"user": "canary"})
    Verdict.objects.create(response=row, reviewer=user, value="bad", note="canary in a note")
    chosen = {"action": "download_records", "_selected_action": [str(row.pk)]}
    assert "canary" in administrator.post("/admin/chat/response/", chosen).getvalue().decode()
    administrator.post(f"/admin/chat/response/{row.pk}/judge/", {"value": "good", "note": "canary"})
    assert LogEntry.objects.count() == 2
    assert tables_with("canary") >= {"Conversation", "IdempotencyKey", "Prompt", "Verdict"}
    told("--user", "ada", "--yes")

    assert tables_with("canary") == set()


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL's files are its own")
def test_no_word_of_it_is_left_in_any_file_while_others_have_them_open(user):
    answered(user, "a canary " * 500)
    file = Path(connection.settings_dict["NAME"])
    files = [*file.parent.glob(f"{file.name}*")]
    with closing(sqlite3.connect(file)) as another:  # the server: the last one would tidy up
        another.execute("SELECT 1 FROM chat_response").fetchall()
        assert any(b"canary" in each.read_bytes() for each in files)
        told("--user", "ada", "--yes")

        assert [each.name for each in files if b"canary" in each.read_bytes()] == []


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL's files are its own")
def test_while_a_backup_reads_it_does_not_end_as_if_all_was_gone(user):
    answered(user, "a canary " * 500)
    file = Path(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(file, isolation_level=None)) as backup:
        backup.execute("BEGIN")
        backup.execute("SELECT 1 FROM chat_response").fetchall()
        for _ in ("removed now", "removed before"):
            with pytest.raises(CommandError, match="Run this again"):
                told("--user", "ada", "--yes")
        backup.execute("COMMIT")
        assert told("--user", "ada") == "Conversations: 0, with 0 responses.\n"

        files = file.parent.glob(f"{file.name}*")
        assert [each.name for each in files if b"canary" in each.read_bytes()] == []


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL has no such setting")
def test_what_is_deleted_is_overwritten_however_sqlite_was_built(user):
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA secure_delete").fetchone() == (1,)
