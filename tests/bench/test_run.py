"""`python -m bench.many`, on the real model: this project's server beside its own engine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.many.processes import ROOT
from bench.many.report import DOCUMENT

SMALL = [*("--only", "rounds", "--rounds", "1", "--clients", "2"), *("--tokens", "6")]
UNWRITTEN = ["--longest", "40", "--patience", "0", "--no-write"]
HERE = ["--devices", "cpu", "--threads", "1"]
ALONE = ["--without", "transformers serve,tutorial"]  # they need requirements-bench.txt
SECONDS = 300  # it may be the first to convert the model and compile the kernels


@pytest.mark.timeout(SECONDS)
def test_the_bench_compares_equal_answers_and_writes_nothing_when_it_is_told():
    before = DOCUMENT.read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "bench.many", *SMALL, *UNWRITTEN, *HERE, *ALONE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    (compared,) = (line for line in done.stdout.splitlines() if "llmsite / engine alone" in line)
    assert compared.endswith("| 1 of 1 |"), done.stdout
    assert "refused" not in done.stdout
    assert DOCUMENT.read_bytes() == before
