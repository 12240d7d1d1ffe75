"""The way through a conversation's tree that leads to a response.

Only the rows of that way are read: where a client begins each chat with the same examples, a
conversation may have thousands of branches, and each request would read all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self
from uuid import UUID

from django.db import connection
from django.http import Http404

from chat.models import Prompt, Response


@dataclass(frozen=True, slots=True)
class Tree:
    """Rows of conversations by their ids; the responses without their token ids."""

    prompts: dict[UUID, Prompt] = field(default_factory=dict)
    responses: dict[UUID, Response] = field(default_factory=dict)

    @classmethod
    def leading_to(cls, leaves: Collection[UUID]) -> Self:
        """The rows on the ways to these responses, in three queries for all of them.

        One that was deleted is not there, with all that led to it: whole conversations are deleted,
        and the responses are read last.
        """
        ways = _ways(leaves)
        prompts = Prompt.objects.in_bulk([prompt_id for _, prompt_id in ways])
        rows = Response.objects.defer("token_ids")
        return cls(prompts, rows.in_bulk([response_id for response_id, _ in ways]))

    def trail(self, leaf: Response) -> list[Prompt | Response]:
        """The rows from the conversation's beginning to `leaf`, oldest first.

        Raises Http404 where it is not there any more.
        """
        if leaf.pk not in self.responses:
            raise Http404
        rows: list[Prompt | Response] = []
        at: Response | None = leaf
        while at is not None:
            prompt = self.prompts[at.prompt_id]
            rows += [at, prompt]
            at = self.responses[prompt.follows_id] if prompt.follows_id else None
        return rows[::-1]


def trail(leaf: Response | None) -> list[Prompt | Response]:
    """The rows from the conversation's beginning to `leaf`, oldest first. Raises Http404."""
    return [] if leaf is None else Tree.leading_to([leaf.pk]).trail(leaf)


def _ways(leaves: Collection[UUID]) -> list[tuple[UUID, UUID]]:
    """Each response on the ways to these, with its prompt; what ways share is there once."""
    if not leaves:
        return []
    key = Response._meta.pk
    with connection.cursor() as cursor:
        cursor.execute(
            _statement(connection.vendor, len(leaves)),
            [key.get_db_prep_value(leaf, connection) for leaf in leaves],
        )
        found: list[tuple[Any, Any]] = cursor.fetchall()
    return [(key.to_python(response), key.to_python(prompt)) for response, prompt in found]


@lru_cache
def _statement(vendor: str, leaves: int) -> str:  # a vendor has its own quotes
    """From the leaves upwards: UNION, not UNION ALL, goes each shared way once."""
    quote = connection.ops.quote_name
    responses, prompts = (quote(model._meta.db_table) for model in (Response, Prompt))
    # Nothing in it but names of the models: every value is a parameter.
    return (
        "WITH RECURSIVE way(response_id, prompt_id, follows_id) AS ("  # noqa: S608
        "SELECT r.id, p.id, p.follows_id "
        f"FROM {responses} r JOIN {prompts} p ON p.id = r.prompt_id "
        f"WHERE r.id IN ({', '.join(['%s'] * leaves)}) "
        "UNION "
        "SELECT r.id, p.id, p.follows_id FROM way "
        f"JOIN {responses} r ON r.id = way.follows_id JOIN {prompts} p ON p.id = r.prompt_id"
        ") SELECT response_id, prompt_id FROM way"
    )
