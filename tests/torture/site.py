"""A site that is started and killed again and again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import UUID

import httpx

from tests.e2e.places import ROOT, free_port
from tests.torture.store import Store

TAKEN_OVER = re.compile(r"going on with response ([0-9a-f-]{36})")


class Site:
    """One data folder, one port, one server at a time.

    up: set while a server answers. store: what is left of it.
    """

    def __init__(
        self, data: Path, *, database: str = "", accounts: int = 1, lease: float, pause: float
    ) -> None:
        data.mkdir(exist_ok=True)
        self.data, self.store = data, Store(data, database)
        self.up = threading.Event()
        self.starts = 0
        self.started_at = 0.0
        self._server = 0
        self._port = free_port()
        self._log_file = data / f"log-{self._port}"
        self._log = self._log_file.open("w")
        self._preloaded = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.server", str(self._port)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "llmsite.settings",
                "LLMSITE_DATA": str(data),
                "DATABASE_URL": database,
                "TORTURE_ACCOUNTS": str(accounts),
                "TORTURE_LEASE": str(lease),
                "TORTURE_PAUSE": str(pause),
            },
        )
        assert self._hear() == "ready", self.log
        self.keys: list[str] = json.loads((data / "keys.json").read_text())

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def log(self) -> str:
        return self._log_file.read_text()

    def taken_over(self) -> list[str]:
        """Ids of the responses that its servers went on with, as they logged it."""
        return [UUID(found).hex for found in TAKEN_OVER.findall(self.log)]

    def client(self, account: int = 0) -> httpx.Client:
        """A client with the account's key."""
        headers = {"Authorization": f"Bearer {self.keys[account]}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=20, trust_env=False)

    def start(self) -> None:
        """Start a server; returns when it is ready."""
        self._server = int(self._say("start"))
        self.starts += 1
        self.started_at = time.monotonic()
        pause = threading.Event()
        while not self._ready():
            assert time.monotonic() < self.started_at + 20, self.log
            pause.wait(0.01)
        self.up.set()

    def end(self, how: signal.Signals = signal.SIGKILL) -> int:
        """Send the server a signal; its exit code."""
        self.up.clear()
        os.kill(self._server, how)
        return int(self._say("wait"))

    def close(self) -> None:
        """End everything, if need be by force."""
        if self.up.is_set():
            self.end()
        assert self._preloaded.stdin is not None
        assert self._preloaded.stdout is not None
        self._preloaded.stdin.close()
        self._preloaded.wait(10)
        self._preloaded.stdout.close()
        self._log.close()

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.address}/readyz", timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _say(self, line: str) -> str:
        assert self._preloaded.stdin is not None
        self._preloaded.stdin.write(f"{line}\n")
        self._preloaded.stdin.flush()
        return self._hear()

    def _hear(self) -> str:
        assert self._preloaded.stdout is not None
        return self._preloaded.stdout.readline().strip()
