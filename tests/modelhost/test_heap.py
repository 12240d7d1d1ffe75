"""What was freed between two things that stay goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from modelhost.cpu import heap

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


# As many threads as a server has, each of which uses memory; how many heaps there are then.
HEAPS = """
import ctypes, sys, tempfile, threading
from modelhost.cpu import heap
if sys.argv[1] == "shared":
    heap.share()
meet = threading.Barrier(8)
def use():
    meet.wait()
    kept = [bytearray(100_000) for _ in range(20)]
    meet.wait()
threads = [threading.Thread(target=use) for _ in range(8)]
for one in threads:
    one.start()
for one in threads:
    one.join()
library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(library.fopen(file.name.encode(), b"w"))
    library.malloc_info(0, stream)
    library.fclose(stream)
    print(open(file.name).read().count("<heap nr="))
"""


def heaps(*arguments: str) -> int:
    """How many a process has in the end."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", HEAPS, *arguments]
    seen = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return int(seen.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told")
def test_threads_share_a_heap():
    assert heaps("apart") > 2, "or there is nothing to share"
    assert heaps("shared") == 1
