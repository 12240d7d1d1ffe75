"""A whole installation: the real command, the real model, a real socket, its own data folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.deployed import Deployed, prepared
from tests.e2e.places import ROOT, free_port


class Installation:
    """One `manage.py serve` at a time over one data folder."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.data = data
        self.environment = environment
        self.process: subprocess.Popen[str] | None = None
        self.printed = ""
        self.port = 0
        self.key = ""
        self.password = ""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environ(self) -> dict[str, str]:
        return {**os.environ, "LLMSITE_DATA": str(self.data), **self.environment}

    def manage(self, *arguments: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        """Another management command over the same data."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def start(self, *, ready: bool = True) -> None:
        """Start the server; returns when it listens, or when it is ready."""
        self.port = free_port()
        self.printed = ""
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "serve", "--port", str(self.port)],
            cwd=ROOT,
            env=self.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        self.wait_for("readyz" if ready else "healthz")
        if found := re.search(r"API key +(\S+)", self.printed):
            self.key = found[1]
        if found := re.search(r"password +(\S+)", self.printed):
            self.password = found[1]

    def wait_for(self, path: str, timeout: float = 90) -> httpx.Response:
        """Poll until the path answers 200."""
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                pytest.fail(f"the server ended:\n{self.printed}")
            try:
                answer = httpx.get(f"{self.address}/{path}", timeout=5)
                if answer.status_code == 200:
                    return answer
            except httpx.TransportError:
                pass
            pause.wait(0.1)
        pytest.fail(f"/{path} did not come:\n{self.printed}")

    def client(self) -> httpx.Client:
        """A client with the installation's first key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=120)

    def end(self, how: signal.Signals = signal.SIGTERM, timeout: float = 20) -> int:
        """Send a signal and wait; the exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(timeout)
        self._reader.join()
        self.process = None
        return code

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.printed += line


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A fresh installation, started once for a module."""
    made = Installation(tmp_path_factory.mktemp("data"))
    made.start()
    yield made
    if made.process is not None:
        made.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The data folder of a server over a scripted model, to copy, and its key."""
    data = tmp_path_factory.mktemp("template")
    return data, prepared(data)


@pytest.fixture
def deploy(template: tuple[Path, str], tmp_path: Path) -> Iterator[Callable[..., Deployed]]:
    """Starts such a server over this test's own data."""
    shutil.copytree(template[0], tmp_path, dirs_exist_ok=True)
    made: list[Deployed] = []

    def start(server: str, **options: float) -> Deployed:
        made.append(Deployed(server, tmp_path, template[1], **options))
        return made[-1]

    yield start
    for server in made:
        server.kill()
