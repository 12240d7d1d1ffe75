"""Kernels share OpenMP's threads with PyTorch, whatever else brought an OpenMP library along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# Which library holds the function, which ones there are, and whether PyTorch computes with it.
LOOK = """
import ctypes, json
import sentencepiece  # brings an OpenMP library of its own
from modelhost.cpu import openmp
import torch
torch.set_num_threads(3)
address = ctypes.cast(openmp.parallel(), ctypes.c_void_p).value
found, every = "", set()
for line in open("/proc/self/maps"):
    where, *_, path = line.split(maxsplit=5)
    first, last = (int(end, 16) for end in where.split("-"))
    if "libgomp" in path or "libomp" in path or "libiomp" in path:
        every.add(path.strip())
    if first <= address < last:
        found = path.strip()
threads = ctypes.CDLL(found).omp_get_max_threads()
print(json.dumps([torch.__file__, found, sorted(every), threads]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads which files are mapped, as Linux has it")
def test_the_threads_are_pytorchs_also_where_its_folder_is_reached_by_a_link(tmp_path: Path):
    packages = Path(torch.__file__).parents[1]
    link = tmp_path / "packages"
    link.symlink_to(packages)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{link}:{root}"}

    seen = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=True
    )

    torch_file, found, every, threads = json.loads(seen.stdout.splitlines()[-1])
    assert torch_file.startswith(str(link)), "or this is no test"
    if len(every) < 2:
        pytest.skip("there is one OpenMP library only, so no other can be taken")
    assert found.startswith(str(packages.resolve() / "torch")), f"of {every}"
    assert threads == 3, "PyTorch's number of threads is this library's"
