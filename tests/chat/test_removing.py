"""A conversation is removed or changed while what is answered in it is written elsewhere."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models.deletion import Collector

from chat import database, responses
from chat.conversations import personas
from chat.lifecycle.updates import update_active
from chat.models import Conversation, Response, Verdict
from tests.chat.holding import Hold
from tests.chat.rows import ELSEWHERE, answered, carried_elsewhere

pytestmark = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="only PostgreSQL locks rows; SQLite has one writer"
)


@pytest.fixture
def two(user):
    """Two answers under way in one conversation, as they lie there."""
    row = carried_elsewhere(user, "Hel")
    return row, carried_elsewhere(user, "Hel", conversation=row.prompt.conversation)


def removing(conversation: Conversation, where: ThreadPoolExecutor) -> Future[bool]:
    return where.submit(responses.remove, conversation)


def test_the_recorder_gets_its_rows_in_whatever_order(two, elsewhere, monkeypatch):
    pausing = Hold()
    monkeypatch.setattr(database, "sleep", lambda seconds: pausing())
    first, second = two
    with transaction.atomic():
        update_active(ELSEWHERE, {second.pk: {"text": "Hello"}})
        removed = removing(first.prompt.conversation, elsewhere)
        assert pausing.reached.wait(10), "who removes waits for a row and may have another"
        assert update_active(ELSEWHERE, {first.pk: {"text": "Hello"}}) == set()
    pausing.released.set()

    assert removed.result(10)
    assert not Conversation.objects.exists()


def test_a_row_that_is_never_let_go_is_an_error_and_nothing_is_removed(two, elsewhere, monkeypatch):
    monkeypatch.setattr(database, "sleep", lambda seconds: None)
    with transaction.atomic():
        update_active(ELSEWHERE, {two[1].pk: {"text": "Hello"}})
        with pytest.raises(OperationalError, match="could not obtain lock"):
            removing(two[0].prompt.conversation, elsewhere).result(10)

    assert Conversation.objects.exists()


def test_a_change_of_the_persona_lets_the_recorder_have_its_rows_too(two, elsewhere, monkeypatch):
    pausing = Hold()
    monkeypatch.setattr(database, "sleep", lambda seconds: pausing())
    first, second = two
    conversation = first.prompt.conversation
    with transaction.atomic():
        update_active(ELSEWHERE, {second.pk: {"text": "Hello"}})
        changed = elsewhere.submit(personas.change, conversation, system="You are brief.")
        assert pausing.reached.wait(10), "who changes waits for a row and may have another"
        assert update_active(ELSEWHERE, {first.pk: {"text": "Hello"}}) == set()
    pausing.released.set()

    assert changed.result(10)
    conversation.refresh_from_db()
    assert conversation.system == "You are brief."
    assert not Response.objects.filter(system=None).exists(), "they were asked without a persona"


def test_nobody_judges_what_is_being_removed(user, elsewhere, monkeypatch):
    row = answered(user, "It is Paris.")
    delete, refused = Collector.delete, []

    def judged_then_deleted(found: Collector):
        refused.append(elsewhere.submit(judge, row, user).exception(10))
        return delete(found)

    monkeypatch.setattr(Collector, "delete", judged_then_deleted)
    assert responses.remove(row.prompt.conversation)
    assert "lock timeout" in str(refused[0]), "it waits, and then finds nothing to judge"
    assert not Conversation.objects.exists()


def judge(row: Response, reviewer: Any) -> None:
    """By somebody who waits for no row for long."""
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '100ms'")
    Verdict.objects.create(response=row, reviewer=reviewer, value="good")
