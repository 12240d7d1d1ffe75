"""A deadline for code of others: it ends what would not, and leaves nothing behind."""

from __future__ import annotations

import itertools
import sys
import threading
from collections import deque

import pytest

from modelhost.deadline import deadline


def test_what_never_ends_is_ended():
    with pytest.raises(TimeoutError, match=r"after 0\.01 s"), deadline(0.01):
        deque((one for one in itertools.count()), maxlen=0)


def test_waiting_for_others_takes_nothing_away():
    with deadline(0.01):
        threading.Event().wait(0.05)
        assert sum(range(10)) == 45


def test_afterwards_nobody_looks_any_more():
    before = sys.gettrace()

    with deadline(60):
        assert sys.gettrace() is not before

    assert sys.gettrace() is before
