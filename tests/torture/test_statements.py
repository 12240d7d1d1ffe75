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
from typing import Any

import pytest

from tests.e2e.places import ROOT
from tests.torture.promises import doubled, unfinished, wrong
from tests.torture.size import FULL
from tests.torture.store import Row, Store

SECONDS = 900 if FULL else 100
LEASE = 0.3
MOST = 300  # steps; it ends at the first that no process dies at


@dataclass
class Told:
    """What the client of one step was told, before the crash and when it tried again.

    lived: said of the last step alone, whether its process came to its end.
    """

    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    lived: list[bool] = field(default_factory=list)

    def note(self, what: str, value: Any) -> None:
        """One line of what the processes say."""
        lists: dict[str, list[Any]] = {
            "told": self.ids,
            "read": self.texts,
            "refused": self.refused,
            "lived": self.lived,
        }
        lists[what].append(value)


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
        told[step].note(what, value)
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
    assert doubled(rows) == [], f"asked twice: {doubled(rows)}"
    assert unfinished(rows) == []
    assert list(wrong(rows)) == []
    assert len(rows) == len(told) > 10
    assert store.damage() == []
    assert told[len(told)].lived == [True], f"the path is not at its end after {MOST} steps"
    figures(f"{work}: {len(told)} of {len(told)} steps survived")
