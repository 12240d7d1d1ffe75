"""Everything in a file and back: what stood in the rows stands there again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.core.management import call_command

from chat.models import ApiKey, Conversation, Prompt, Response
from tests.chat.rows import answered

WITHIN_A_MILLISECOND = [datetime(2026, 11, 30, 12, 0, 0, at, tzinfo=UTC) for at in (1, 2, 3)]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_a_log_that_was_moved_is_the_same(user, tmp_path, kind):
    ApiKey.issue(user=user, name="laptop")
    conversation = Conversation.objects.create(user=user, title="Ü ☠")
    for moment in WITHIN_A_MILLISECOND:
        answered(user, f"{moment} \x1b[31m", conversation=conversation, created_at=moment)
    before = everything()
    file = tmp_path / f"all.{kind}"
    moved(file)

    assert everything() == before
    newest = Conversation.objects.get().newest_response()
    assert newest is not None
    assert newest.created_at == WITHIN_A_MILLISECOND[-1]


def everything() -> list[list[tuple[object, ...]]]:
    """All columns of all rows."""
    kinds = (ApiKey, Conversation, Prompt, Response)
    return [list(kind.objects.order_by("pk").values_list()) for kind in kinds]


def moved(file: Path) -> None:
    """As docs/operations.md says it, over an emptied database."""
    leave = ["contenttypes", "auth.permission"]
    named = {"use_natural_foreign_keys": True, "use_natural_primary_keys": True}
    call_command("dumpdata", exclude=leave, format=file.suffix[1:], output=str(file), **named)
    Conversation.objects.all().delete()
    ApiKey.objects.all().delete()
    call_command("loaddata", str(file), verbosity=0)
