"""What the tests of admission share: places under a clock of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chat.limits.admission import Admission, Overloaded

Leave = Callable[[], None]


def fill(places: Admission, count: int, *, caller: str = "", tokens: int = 1) -> list[Leave]:
    """That many requests inside; of callers of their own, or of one."""
    return [places.enter(caller or f"caller {at}", tokens=tokens) for at in range(count)]


def refused(places: Admission, caller: str = "ada", *, tokens: int = 1) -> Overloaded:
    """The refusal of one more."""
    before = places.total
    with pytest.raises(Overloaded) as caught:
        places.enter(caller, tokens=tokens)
    assert places.total == before
    return caught.value
