"""The reasoning of earlier answers, which the templates of reasoning models leave out.

Such a model writes `<think>…</think>` in front of its answer, and the template that it was trained
with drops that part of earlier answers. It finds the tag in their content, where markers stand
(`modelhost.slots`). So it is asked first with the tag beside the markers, and what it drops then is
taken out of the turns. What becomes the prompt is rendered without tags: one that a client sent
could otherwise become a control token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from modelhost.slots import Slots
from modelhost.types import Role, Turn

END = "</think>"
GAP = "\n" * 7  # more than a template writes itself between a role and its text


def dropped(
    turns: Sequence[Turn], templated: Callable[[Sequence[Turn], Sequence[str]], str]
) -> list[Turn]:
    """The turns without the reasoning that this template drops.

    templated: what the template makes of the turns with these contents.
    """
    if not any(map(_reasons, turns)):
        return list(turns)
    slots = Slots()
    thoughts = [slots.add(turn.content) for turn in turns]
    answers = [slots.add(END) for _ in turns]
    contents = [
        f"{thought}{END}{GAP}{answer}" if _reasons(turn) else thought
        for turn, thought, answer in zip(turns, thoughts, answers, strict=True)
    ]
    text = templated(turns, contents)
    return [
        replace(turn, content=_answer(turn, keeps_lines=GAP + answer in text))
        if _reasons(turn) and thought not in text
        else turn
        for turn, thought, answer in zip(turns, thoughts, answers, strict=True)
    ]


def _reasons(turn: Turn) -> bool:
    return turn.role == Role.ASSISTANT and END in turn.content


def _answer(turn: Turn, *, keeps_lines: bool) -> str:
    answer = turn.content.rpartition(END)[2]
    return answer if keeps_lines else answer.lstrip("\n")
