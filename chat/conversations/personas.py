"""Personas: the system text that the model sees before everything that was said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.db import transaction

from chat.database import when_unlocked
from chat.models import Conversation, Response


def persona(system: str) -> str:
    """The system text that applies: the conversation's own, else the installation's."""
    return system or settings.LLMSITE_SYSTEM


def own_persona(conversation: Conversation) -> str:
    """The persona that names a conversation's histories; the installation's names none."""
    return "" if conversation.system == settings.LLMSITE_SYSTEM else conversation.system


def to_keep(system: str, conversation: Conversation) -> str | None:
    """What a response's row says of its persona: nothing where that is the conversation's."""
    return None if conversation.system == system else system


def seen(response: Response) -> str:
    """The persona that the model saw when it was asked for this response; empty without one."""
    own = response.system
    return response.prompt.conversation.system if own is None else own


def change(conversation: Conversation, **columns: Any) -> bool:
    """Change columns of a conversation, its persona for what comes; whether it is still there.

    What was said before keeps the persona that it was said under. Raises OperationalError where
    another session keeps a row of it.
    """
    return when_unlocked(lambda: _change(conversation, columns))


def _change(conversation: Conversation, columns: Mapping[str, Any]) -> bool:
    with transaction.atomic():
        rows = Conversation.objects.filter(pk=conversation.pk)
        held = rows.select_for_update().first()
        if held is None:
            return False
        if columns.get("system", held.system) != held.system:
            said = Response.objects.filter(prompt__conversation=held, system=None)
            said.active().hold()
            said.update(system=held.system)
        if columns:
            rows.update(**columns)
    return True
