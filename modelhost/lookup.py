"""An index of n-grams, in which modelhost.speculation looks its drafts up."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile

KNOWN = 3  # tokens of the longest n-gram
REMEMBERED = 16_384  # tokens of an owner's answers; beyond, the memory begins anew
OWNERS = 64  # that are remembered, the last ones
REMEMBERED_OF_ALL = 131_072  # tokens: a token takes up to 400 bytes, in all at most 50 MB
NEVER = -1  # no token: where one answer ends and the next begins


class Lookup:
    """Where the n-grams of a text stand that grows at its end."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}  # n-gram: the position right after it

    def extend(self, tokens: Sequence[int]) -> None:
        """Append to the text. Of several places of one n-gram the newest counts."""
        begin = len(self.tokens)
        self.tokens += tokens
        for place in range(max(begin, 1), len(self.tokens)):
            for length in range(1, min(KNOWN, place) + 1):
                self._places[tuple(self.tokens[place - length : place])] = place

    def find(self, last: Sequence[int]) -> tuple[int, int]:
        """The place behind the longest n-gram at their end, and how many tokens agree there."""
        for length in range(min(KNOWN, len(last)), 0, -1):
            place = self._places.get(tuple(last[-length:]))
            if place is not None:
                return place, self._agreed(place, last)
        return 0, 0

    def _agreed(self, place: int, last: Sequence[int]) -> int:
        longest = min(len(last), place)
        before = self.tokens[place - longest : place]
        pairs = zip(reversed(before), reversed(last), strict=False)
        return next((at for at, (one, other) in enumerate(pairs) if one != other), longest)

    def follow(self, place: int, count: int) -> list[int]:
        """At most so many tokens from a place on, as far as they belong to one answer.

        Past the text's end it starts again at the place, as refrains do.
        """
        period = len(self.tokens) - place
        following = (self.tokens[place + at % period] for at in range(count))
        return list(takewhile(lambda token: token != NEVER, following))


NOTHING = Lookup()


class Memory:
    """What each owner was answered lately: nobody's drafts show what others were told."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, Lookup] = OrderedDict()
        self._tokens = 0  # of all owners

    def add(self, owner: str, answer: Sequence[int]) -> None:
        """An answer is over."""
        if not owner:
            return
        lookup = self._owners.pop(owner, NOTHING)
        self._tokens -= len(lookup.tokens)
        if lookup is NOTHING or len(lookup.tokens) > REMEMBERED:
            lookup = Lookup()
        lookup.extend([*answer, NEVER])
        self._owners[owner] = lookup
        self._tokens += len(lookup.tokens)
        while len(self._owners) > OWNERS or self._tokens > REMEMBERED_OF_ALL:
            _, forgotten = self._owners.popitem(last=False)
            self._tokens -= len(forgotten.tokens)

    def of(self, owner: str) -> Lookup:
        """The owner's answers, one behind the other."""
        return self._owners.get(owner, NOTHING)
