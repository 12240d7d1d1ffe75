"""Measure what docs/figures.md reports: `make figures`.

Starts the service as a user would, over an empty data folder, and asks it over HTTP.
Prints a Markdown table; nothing is estimated.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
TOKENS = 64
PROMPT = "Write a long story about a lighthouse keeper, day {n}."


@dataclass
class Started:
    """A running server and how long it took."""

    process: subprocess.Popen[str]
    address: str
    seconds_to_listen: float
    seconds_to_ready: float
    key: str


def start(data: Path, cache: Path) -> Started:
    """Start `manage.py serve`, read its key, wait until it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = data.parent / f"{port}.log"
    environment = {**os.environ, "LLMSITE_DATA": str(data), "LLMSITE_CACHE": str(cache)}
    begun = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "serve", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    address = f"http://127.0.0.1:{port}"
    listens = wait_for(f"{address}/healthz") - begun
    ready = wait_for(f"{address}/readyz") - begun
    found = re.search(r"API key +(\S+)", log.read_text())
    return Started(process, address, listens, ready, found[1] if found else "")


def wait_for(url: str) -> float:
    """Poll until the address answers 200; when that was."""
    while True:
        try:
            answer = httpx.get(url, timeout=5)
            if answer.status_code == 200:
                return time.perf_counter()
            if answer.json().get("status") == "failed":
                raise RuntimeError(answer.json()["detail"])
        except httpx.TransportError:
            pass
        time.sleep(0.05)


def stop(server: Started) -> float:
    """SIGTERM; seconds until the process is gone."""
    begun = time.perf_counter()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(30)
    return time.perf_counter() - begun


def memory(server: Started) -> tuple[int, int]:
    """Resident memory now and at its peak, in MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    now, peak = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
    if not now or not peak:
        raise RuntimeError("/proc does not tell the memory of the server")
    return int(now[1]) // 1024, int(peak[1]) // 1024


def one_client(server: Started, number: int) -> tuple[int, float]:
    """Stream one answer; its tokens and the seconds to its first piece."""
    body = {"prompt": PROMPT.format(n=number), "max_tokens": TOKENS, "stream": True}
    headers = {"Authorization": f"Bearer {server.key}"}
    begun = time.perf_counter()
    first = 0.0
    tokens = 0
    url = f"{server.address}/chat/new/message/"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=300) as stream:
        stream.raise_for_status()
        for line in stream.iter_lines():
            if line.startswith("data: "):
                data = json.loads(line[6:])
                if "text" in data:
                    first = first or time.perf_counter() - begun
                usage = data.get("usage")
                tokens = usage["completion_tokens"] if usage else tokens
    if not tokens:
        raise RuntimeError("a stream ended without its usage")
    return tokens, first


def load(server: Started, clients: int) -> tuple[float, float]:
    """So many clients at once; tokens per second over all, median time to the first piece."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda number: one_client(server, number), range(clients)))
    seconds = time.perf_counter() - begun
    return sum(tokens for tokens, _ in answers) / seconds, statistics.median(
        first for _, first in answers
    )


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        data, cache = Path(folder) / "data", Path(folder) / "cache"
        cold = start(data, cache)
        stop(cold)
        server = start(data, cache)
        server.key = cold.key
        idle, _ = memory(server)
        one_client(server, 0)  # the first request compiles nothing, but warms the page cache
        rates = {clients: load(server, clients) for clients in (1, 8, 32)}
        _, peak = memory(server)
        ended = stop(server)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    print(f"{datetime.now(UTC):%Y-%m-%d}, commit {commit.stdout.strip() or 'unknown'}, ", end="")
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
    print("| what | figure |\n|---|---|")
    print(f"| cold start (model converted) to ready | {cold.seconds_to_ready:.1f} s |")
    print(f"| warm start to listening | {server.seconds_to_listen:.1f} s |")
    print(f"| warm start to ready (a token was made) | {server.seconds_to_ready:.1f} s |")
    print(f"| memory, idle and ready | {idle} MB |")
    print(f"| memory, peak after 32 clients | {peak} MB |")
    for clients, (rate, first) in rates.items():
        print(f"| {clients} clients, {TOKENS} tokens each | {rate:.0f} tokens/s, ", end="")
        print(f"first piece after {first:.2f} s (median) |")
    print(f"| SIGTERM to gone, idle | {ended:.1f} s |")


if __name__ == "__main__":
    main()
