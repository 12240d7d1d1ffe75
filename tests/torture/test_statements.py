"""A crash before every SQL statement and on both sides of every commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT
from tests.torture.promises import doubled, unfinished, wrong
from tests.torture.size import FULL
from tests.torture.store import Row, Store

SECONDS = 900 if FULL else 100
LEASE = 0.3
MOST = 300  # steps; it ends at the first that no process dies at


@dataclass
class Told:
    """What the client of one step was told, before the crash and when it tried again."""

    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def crash_everywhere(work: str, data: Path, database: str) -> dict[int, Told]:
    """Run it in processes of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture.crash", work, str(MOST)],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "llmsite.settings",
            "LLMSITE_DATA": str(data),
            "DATABASE_URL": database,
            "TORTURE_LEASE": str(LEASE),
            "ALLOWED_HOSTS": "testserver",  # what Django's test client calls itself
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    told: dict[int, Told] = defaultdict(Told)
    for step, what, value in map(json.loads, done.stdout.splitlines()):
        lists = {"told": told[step].ids, "read": told[step].texts, "refused": told[step].refused}
        lists[what].append(value)
    return told


def lost(told: dict[int, Told], rows: list[Row]) -> Iterator[str]:
    """Every way in which a client was told something that does not hold."""
    stored = {row.id: row for row in rows}
    for step, client in told.items():
        if client.refused:
            yield f"step {step} was refused: {client.refused}"
        if len(set(client.ids)) != 1:
            yield f"step {step} was told of {client.ids}"
        for text in client.texts:
            if client.ids[0] not in stored or text != stored[client.ids[0]].text:
                yield f"step {step} read {text!r}"


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("work", ["accept", "recover"] if FULL else ["accept"])
def test_no_crash_at_any_statement_loses_or_doubles_a_prompt(
    work: str, tmp_path: Path, database: str, figures: Callable[[str], None]
) -> None:
    told = crash_everywhere(work, tmp_path, database)

    store = Store(tmp_path, database)
    rows = store.rows()
    assert list(lost(told, rows)) == []
    assert doubled(rows) == []
    assert unfinished(rows) == []
    assert list(wrong(rows)) == []
    assert len(rows) == len(told) > 10
    assert store.damage() == []
    figures(f"{work}: {len(told)} of {len(told)} steps survived")
