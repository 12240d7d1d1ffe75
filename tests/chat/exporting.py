"""Exports that tests read, and a conversation to export."""

from __future__ import annotations

import json
from typing import Any

from chat.log.datasets import Format
from chat.log.exports import Export
from chat.models import Conversation, Response
from tests.chat.rows import answered


def exported(layout: Format = Format.RECORDS, rows: Any = None, **options: Any) -> list[Any]:
    """The lines of an export, read."""
    chosen = Response.objects.all() if rows is None else rows
    return [json.loads(line) for line in "".join(Export(chosen, layout, **options)).splitlines()]


def two_turns(user: Any, **columns: Any) -> Response:
    """The second answer of a conversation that has a persona."""
    conversation = Conversation.objects.create(user=user, title="Towns", system="You are brief.")
    first = answered(user, "Paris.", conversation=conversation, prompt="Of France?")
    return answered(
        user, "Rome.", conversation=conversation, prompt="Of Italy?", follows=first, **columns
    )
