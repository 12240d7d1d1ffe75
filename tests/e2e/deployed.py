"""A server's real command over a scripted model, in a process of its own."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx

from tests.e2e.places import ROOT, free_port
from tests.web import Event, eventually, read_events

ASK = "/chat/new/message/"


class Deployed:
    """One server process over a prepared data folder."""

    def __init__(
        self,
        server: str,
        data: Path,
        key: str,
        *,
        drain: float,
        pause: float = 0.002,
        ready: bool = True,
    ) -> None:
        self.data = data
        self.port = free_port()
        self.key = key
        self._log = data / "log"
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.scripted_server", server, str(self.port)],
                cwd=ROOT,
                env={
                    **os.environ,
                    "LLMSITE_DATA": str(data),
                    "LLMSITE_DRAIN_SECONDS": str(drain),
                    "SCRIPT_PAUSE": str(pause),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._ready if ready else self._listens, seconds=60)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def printed(self) -> str:
        return self._log.read_text()

    @property
    def memory(self) -> int:
        """Resident bytes."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.address,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=30,
        )

    @contextmanager
    def stream(self, prompt: str) -> Iterator[Iterator[Event]]:
        """Ask, and leave with the block."""
        body = {"prompt": prompt, "stream": True}
        with self.client() as client, client.stream("POST", ASK, json=body) as answer:
            assert answer.status_code == 200, answer.read()
            yield read_events(answer.iter_lines())

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def drain(self) -> None:
        """Tell it to end; returns when it has heard."""
        self.signal(signal.SIGTERM)
        eventually(lambda: "a second signal hurries" in self.printed)

    def status_of(self, path: str) -> int:
        with self.client() as client:
            return client.get(path).status_code

    def end(self, timeout: float = 20) -> tuple[int, float]:
        """Wait for its end: the exit code, and after how many seconds from now."""
        before = time.monotonic()
        return self._process.wait(timeout), time.monotonic() - before

    def kill(self) -> None:
        """Whatever it was doing."""
        self._process.kill()
        self._process.wait()

    def rows(self) -> list[tuple[str, str]]:
        """Status and text of each response, as they lie on the disk."""
        with closing(sqlite3.connect(self.data / "llmsite.sqlite3")) as database:
            return database.execute("SELECT status, text FROM chat_response").fetchall()

    def _listens(self) -> bool:
        assert self._process.poll() is None, self.printed
        try:
            return bool(self.status_of("/healthz"))
        except httpx.TransportError:
            return False

    def _ready(self) -> bool:
        return self._listens() and self.status_of("/readyz") == 200


def prepared(data: Path) -> str:
    """Make the database in this folder; a key for it."""
    return subprocess.run(
        [sys.executable, "-m", "tests.e2e.scripted_server", "prepare", "0"],
        cwd=ROOT,
        env={**os.environ, "LLMSITE_DATA": str(data)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
