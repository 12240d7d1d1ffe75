"""What stands beside a turn: the other prompts after the same answer, the other answers to it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from uuid import UUID

from chat.models import Conversation, Prompt, Response


@dataclass(frozen=True, slots=True)
class Version:
    """One of several turns in one place. end: the newest response behind it, if there is one."""

    end: UUID | None
    shown: bool


class Versions:
    """The tree of one conversation, without its texts."""

    def __init__(self, conversation: Conversation) -> None:
        prompts = Prompt.objects.filter(conversation=conversation).order_by("created_at", "pk")
        responses = Response.objects.filter(prompt__conversation=conversation)
        # Responses first: of one that comes in between, the prompt would be missing.
        self._prompt: dict[UUID, UUID] = dict(
            responses.order_by("created_at", "pk").values_list("pk", "prompt_id")
        )
        self._follows: dict[UUID, UUID | None] = dict(prompts.values_list("pk", "follows_id"))
        self._ends = self._find_ends()
        self._prompts_after: dict[UUID | None, list[UUID]] = defaultdict(list)
        for prompt_id, response_id in self._follows.items():
            self._prompts_after[response_id].append(prompt_id)
        self._responses_to: dict[UUID, list[UUID]] = defaultdict(list)
        for response_id, prompt_id in self._prompt.items():
            self._responses_to[prompt_id].append(response_id)

    def end_through(self, response_id: UUID | None) -> UUID | None:
        """Where the newest path through this response ends; None for one of somewhere else."""
        return self._ends.get(response_id) if response_id else None

    def newest(self) -> UUID | None:
        """Where the newest path ends."""
        return next(reversed(self._prompt), None)

    def of(self, row: Prompt | Response) -> list[Version]:
        """This turn and those in its place, oldest first; empty when it is the only one."""
        if isinstance(row, Response):
            beside = self._responses_to[row.prompt_id]
        else:
            beside = self._prompts_after[row.follows_id]
        if len(beside) < 2:
            return []
        return [Version(end=self._ends.get(pk), shown=pk == row.pk) for pk in beside]

    def _find_ends(self) -> dict[UUID, UUID]:
        """The newest response behind each row. Newest first, so that each row is met once."""
        ends: dict[UUID, UUID] = {}
        for newest in reversed(self._prompt):
            at: UUID | None = newest
            while at in self._prompt and at not in ends:
                prompt_id = self._prompt[at]
                ends[at] = newest
                ends.setdefault(prompt_id, newest)
                at = self._follows.get(prompt_id)  # else all of it was removed in between
        return ends
