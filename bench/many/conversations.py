"""What is asked: stories in prompts of 20 to 1,500 tokens, every fourth one with a second turn.

Each round asks about other things, so that no server answers from what it kept of an earlier one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice

# Tokens of what the user says first: mostly little, sometimes a document, once a long one.
LENGTHS = (
    *(40, 100, 24, 60, 30, 28, 150, 20, 70, 32, 90, 24, 240, 20, 50, 36),
    *(44, 24, 400, 30, 40, 80, 20, 28, 120, 28, 60, 1500, 24, 40, 36, 200),
    *(52, 30, 90, 26, 44, 180, 22, 64, 36, 110, 20, 48, 28, 260, 34, 58),
    *(24, 130, 40, 20, 76, 32, 54, 160, 26, 46, 84, 22, 300, 38, 62, 30),
)
LONGEST = max(LENGTHS)
ENTRY = 22  # tokens of a line of the log book
TALKS_ON = 4  # every so many conversations one has a second turn

PEOPLE = ("keeper", "baker", "pilot", "farmer", "teacher", "sailor", "miller", "painter")
PLACES = ("island", "harbour", "mountain", "desert", "village", "river", "forest", "city")
THINGS = ("lamp", "bread", "letter", "horse", "clock", "boat", "wheel", "picture")
WEATHER = ("rain", "snow", "wind", "fog", "sunshine", "frost", "thunder", "hail")

Count = Callable[[str], int]  # tokens of a text


@dataclass(frozen=True, slots=True)
class Size:
    """count: tokens of a text. answer: tokens of an answer, at most. longest: of a prompt."""

    count: Count
    answer: int
    longest: int = LONGEST


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a user says, turn by turn; the answers between are the server's."""

    name: str
    says: tuple[str, ...]


def conversations(number: int, size: Size, *, label: str) -> list[Conversation]:
    """So many, the same for the same label."""
    return [
        conversation(
            f"{label}-{index}", size, tokens=tokens, turns=2 if index % TALKS_ON == 0 else 1
        )
        for index, tokens in enumerate(islice(cycle(LENGTHS), number))
    ]


def conversation(name: str, size: Size, *, tokens: int, turns: int) -> Conversation:
    """One whose first prompt has about so many tokens."""
    count = size.count
    pick = random.Random(name)
    question = (
        f"Write a long story about a {pick.choice(PEOPLE)} who found "
        f"{pick.randrange(2, 99)} {pick.choice(THINGS)}s on a {pick.choice(PLACES)}."
    )
    room = min(tokens, size.longest) - count(question)
    log: list[str] = []
    while room > ENTRY / 2:
        log.append(entry(pick, day=len(log) + 1))
        room -= count(log[-1])
    first = "\n".join([*log, question])
    later = [f"What did the {pick.choice(PEOPLE)} do the next day?" for _ in range(turns - 1)]
    return Conversation(name, (first, *later))


def entry(pick: random.Random, *, day: int) -> str:
    """A line of a log book."""
    return (
        f"Log, day {day}: the {pick.choice(PEOPLE)} from the {pick.choice(PLACES)} brought "
        f"{pick.randrange(2, 99)} {pick.choice(THINGS)}s and spoke of {pick.choice(WEATHER)}."
    )
