"""What was freed between two things that stay goes back to the system."""

from __future__ import annotations

import sys

import psutil
import pytest
import torch

from modelhost import heap

MEGABYTE = 1 << 20
PIECE = MEGABYTE // 4  # numbers; smaller than what malloc maps on its own


def resident() -> int:
    """Bytes of this process."""
    return int(psutil.Process().memory_info().rss)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told")
def test_holes_between_what_stays_are_given_back():
    torch.empty(31 * MEGABYTE, dtype=torch.uint8)  # freed: from now on malloc takes the heap
    kept = [torch.ones(PIECE) for _ in range(200)]
    del kept[::2]
    before = resident()

    heap.give_back()

    assert before - resident() > 50 * MEGABYTE
    assert all(one.sum() == PIECE for one in kept), "and nothing else is"
