"""A caller's own rows: what is somebody else's does not exist, whichever way it is asked for."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404

from chat.models import Conversation, Prompt, Response
from modelhost.types import Role


def own_conversation(user: Any, conversation_id: UUID) -> Conversation:
    """The user's conversation with this id. Raises Http404."""
    return _one(Conversation.objects.for_user(user), conversation_id)


def own_prompt(user: Any, prompt_id: UUID) -> Prompt:
    """The user's prompt with this id, if it says something. Raises Http404."""
    rows = Prompt.objects.for_user(user).exclude(content="", role=Role.USER)
    return _one(rows.select_related("conversation", "follows"), prompt_id)


def own_response(user: Any, response_id: UUID) -> Response:
    """The user's response with this id. Raises Http404."""
    rows = Response.objects.for_user(user).select_related("prompt__conversation")
    return _one(rows, response_id)


def _one(rows: Any, row_id: UUID) -> Any:
    row = rows.filter(pk=row_id).first()
    if row is None:
        raise Http404
    return row
