"""What clients that never read cost: `python -m bench.slow_readers`.

Starts three servers in turn, daphne as it is, the one of `manage.py serve`, and uvicorn, over an
application that streams 8 MiB, and asks each with 200 clients that read nothing, over HTTP and then
through WebSockets. Prints how much the server's memory grew, and how many seconds a client that
reads waits for its answer then.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = 200
PIECE = b"x" * 1024
TEXT = PIECE.decode()
ASK = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
HEADS = {"http": f"{ASK}\r\n", "websocket": f"{ASK}{UPGRADE}\r\n"}
PIECES = 8 << 10
SETTLED = 10.0  # seconds for the servers to have sent what they will


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Eight mebibytes in small pieces, as a stream of events comes; `/short` is one."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        for _ in range(PIECES):
            await send({"type": "websocket.send", "text": TEXT})
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1 if scope["path"] == "/short" else PIECES):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body"})


def daphne(port: int) -> None:
    """The server of the `daphne` command."""
    from daphne.server import Server

    Server(application, endpoints=[f"tcp:port={port}:interface=127.0.0.1"]).run()


def serve(port: int) -> None:
    """The server of `manage.py serve`."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmsite.settings")
    django.setup()
    from llmsite.server import Server

    Server(application, endpoints=[f"tcp:port={port}:interface=127.0.0.1"]).run()


def uvicorn(port: int) -> None:
    """The server of the `uvicorn` command."""
    from uvicorn import run

    run(application, port=port, log_level="warning", lifespan="off")


SERVERS = {"daphne": daphne, "serve": serve, "uvicorn": uvicorn}


def measure(name: str, head: str) -> tuple[float, float]:
    """Growth in MB, seconds of a neighbour. head: what each client asks."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.slow_readers", name, str(port)], cwd=ROOT
    )
    clients: list[socket.socket] = []
    try:
        while True:
            with suppress(OSError):
                ask_shortly(port)
                break
            time.sleep(0.1)
        before = memory(process.pid)
        for _ in range(CLIENTS):
            clients.append(socket.create_connection(("127.0.0.1", port)))
            clients[-1].sendall(head.encode())
        time.sleep(SETTLED)
        begun = time.perf_counter()
        ask_shortly(port)
        return (memory(process.pid) - before) / 1e6, time.perf_counter() - begun
    finally:
        for client in clients:
            client.close()
        process.kill()
        process.wait()


def ask_shortly(port: int) -> None:
    """A client that reads."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/short", timeout=300) as answer:
        answer.read()


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """The table, or one of the servers."""
    if len(sys.argv) > 1:
        SERVERS[sys.argv[1]](int(sys.argv[2]))
        return
    print(f"{CLIENTS} clients that never read {PIECES * len(PIECE) >> 20} MiB each")
    for wire, head in HEADS.items():
        for name in SERVERS:
            grown, seconds = measure(name, head)
            told = {"grown_mb": round(grown), "neighbour": round(seconds, 3)}
            print(json.dumps({"wire": wire, "server": name, **told}), flush=True)


if __name__ == "__main__":
    main()
