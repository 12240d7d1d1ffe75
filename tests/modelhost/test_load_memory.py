"""Loading a ChatGLM takes its weights and one shard, or two layers where that is more.

A layer is there three times while it is packed for a CPU (fp32 only): waiting, as float32 and
packed; two layers are packed at a time. In a release a shard holds several layers in fp16, here
it holds one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.checkpoint import Shape, write_checkpoint
from modelhost.cpu.packing import AT_A_TIME

ROOT = Path(__file__).resolve().parents[2]
SHAPE = Shape(
    layers=5, hidden=1024, heads=16, groups=2, dim=64, inner=8192, vocabulary=16384, context=512
)
MARGIN = 32_000_000  # for the engine, its cache and a first forward pass


LARGEST_LAYER = 2 * SHAPE.inner * SHAPE.hidden  # numbers in it
PACKED = AT_A_TIME * 6 * LARGEST_LAYER  # once in fp32, once in its packed 16 bits


@pytest.mark.parametrize(
    ("pickled", "dtype", "packed"), [(False, "fp32", PACKED), (True, "bf16", 0)]
)
def test_the_peak_is_the_weights_and_one_shard_or_layer(pickled, dtype, packed, tmp_path):
    write_checkpoint(tmp_path, SHAPE, pickled=pickled)

    done = subprocess.run(
        [sys.executable, "-m", "bench.memory", "--model", str(tmp_path), "--dtype", dtype],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )

    measured = json.loads(done.stdout)
    assert measured["all_shards"] > 4 * measured["largest_shard"] > 200_000_000
    assert measured["peak"] >= measured["weights"], "else nothing was measured"
    spare = max(measured["largest_shard"], packed)
    assert measured["peak"] <= measured["weights"] + spare + MARGIN
