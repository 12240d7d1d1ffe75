"""A measured program: one process and what it starts."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from bench.many.exchange import HOST

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0  # seconds for a start


class Program:
    """A process that runs now; while it is paused it takes no CPU from the one that is measured."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        talks: bool = False,
    ) -> None:
        """talks: whether its input and output are for `ask`, or its output goes to the log."""
        self.log = log
        self.begun = time.perf_counter()
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else output,
                stderr=output,
                text=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, line: str) -> str:
        """A line to its input, the next line of its output. Raises RuntimeError when it is gone."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("this program does not talk")
        self.process.stdin.write(line)
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"it ended: {self.log.read_text()[-2000:]}")
        return answer

    def cpu(self) -> float:
        """CPU seconds of all its processes, those that ended included."""
        seconds = 0.0
        for one in self.tree():
            times = one.cpu_times()
            seconds += times.user + times.system
            if one.pid == self.pid:
                seconds += times.children_user + times.children_system
        return seconds

    def forget_peak(self) -> None:
        """From now on `peak` is the largest since now."""
        for one in self.tree():
            Path(f"/proc/{one.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """The largest resident memory in bytes."""
        return self._status("VmHWM")

    def resident(self) -> int:
        """Resident memory in bytes."""
        return self._status("VmRSS")

    def pause(self) -> None:
        for one in self.tree():
            one.suspend()

    def resume(self) -> None:
        for one in self.tree():
            one.resume()

    def stop(self) -> None:
        """End it, paused or not."""
        with suppress(psutil.NoSuchProcess):
            self.resume()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def tree(self) -> list[psutil.Process]:
        """Its processes, itself first."""
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def _status(self, field: str) -> int:
        total = 0
        for one in self.tree():
            for line in Path(f"/proc/{one.pid}/status").read_text().splitlines():
                if line.startswith(f"{field}:"):
                    total += int(line.split()[1]) * 1024
        return total


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def get(port: int, path: str) -> int:
    """The status of a GET; 0 while nobody listens."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def wait_until_ready(program: Program, port: int, path: str, *, pause: float = 0.02) -> None:
    """Until a GET answers 200; asked again after so many seconds.

    Raises RuntimeError when the program ends or takes too long.
    """
    while get(port, path) != 200:
        if program.process.poll() is not None:
            raise RuntimeError(f"it ended: {program.log.read_text()[-2000:]}")
        if time.perf_counter() - program.begun > PATIENCE:
            raise RuntimeError(f"it is not ready: {program.log.read_text()[-2000:]}")
        time.sleep(pause)
