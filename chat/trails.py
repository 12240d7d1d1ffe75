"""The way through a conversation's tree that leads to a response."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from chat.models import Prompt, Response


@dataclass(frozen=True, slots=True)
class Tree:
    """All rows of one conversation by their ids; the responses without their token ids."""

    prompts: dict[UUID, Prompt] = field(default_factory=dict)
    responses: dict[UUID, Response] = field(default_factory=dict)

    @classmethod
    def of(cls, conversation_ids: Iterable[UUID]) -> dict[UUID, Self]:
        """The trees of these conversations, in two queries for all of them."""
        trees: dict[UUID, Self] = defaultdict(cls)
        wanted = list(conversation_ids)
        for prompt in Prompt.objects.filter(conversation__in=wanted):
            trees[prompt.conversation_id].prompts[prompt.pk] = prompt
        rows = Response.objects.filter(prompt__conversation__in=wanted).defer("token_ids")
        conversation_of = {pk: key for key, tree in trees.items() for pk in tree.prompts}
        for response in rows:
            # A prompt that came between the two queries has no place here yet.
            if (key := conversation_of.get(response.prompt_id)) is not None:
                trees[key].responses[response.pk] = response
        return trees

    def trail(self, leaf: Response) -> list[Prompt | Response]:
        """The rows from the conversation's beginning to `leaf`, oldest first."""
        rows: list[Prompt | Response] = []
        at: Response | None = leaf
        while at is not None:
            prompt = self.prompts[at.prompt_id]
            rows += [at, prompt]
            at = self.responses.get(prompt.follows_id) if prompt.follows_id else None
        return rows[::-1]


def trail(leaf: Response | None) -> list[Prompt | Response]:
    """The rows from the conversation's beginning to `leaf`, oldest first, in two queries."""
    if leaf is None:
        return []
    key = leaf.prompt.conversation_id
    return Tree.of([key])[key].trail(leaf)
