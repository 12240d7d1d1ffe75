"""The product, served as `manage.py serve` does it, over a witness: `python -m … server PORT`.

This process only prepares: it imports what is slow and makes the accounts. Each line `start` on
its standard input forks a server, whose process id it prints; the server is then killed, and the
line `wait` collects it and prints how it ended. So a start is quick.

One server at a time: the forks share the reactor's epoll.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.torture.preload import fork, in_child, preload


def main() -> None:
    """Prepare, then do what the lines say until there are no more."""
    port = int(sys.argv[1])
    preload()
    assert in_child(make_accounts) == 0
    answer("ready")
    child = 0
    for line in sys.stdin:
        if line.strip() == "start":
            child = fork(lambda: serve(port))
            answer(child)
        elif line.strip() == "wait":
            answer(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def answer(what: object) -> None:
    """One line to whoever drives this."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def make_accounts() -> None:
    """Migrate; users u0, u1 … with a key each, which lie in a file of the data folder."""
    from django.core.management import call_command

    call_command("migrate", interactive=False, verbosity=0)
    keys = Path(os.environ["LLMSITE_DATA"]) / "keys.json"
    if not keys.exists():
        count = int(os.environ.get("TORTURE_ACCOUNTS", "1"))
        keys.write_text(json.dumps([new_key(f"u{index}") for index in range(count)]))


def new_key(name: str) -> str:
    """A new user's key."""
    from django.contrib.auth import get_user_model

    from chat.models import ApiKey

    return ApiKey.issue(user=get_user_model().objects.create(username=name))[1]


def shorten_lease() -> None:
    """Wherever it was copied to: a test does not want to wait as long as a site should."""
    import_module("chat.acceptance")
    lease = timedelta(seconds=float(os.environ["TORTURE_LEASE"]))
    ours: list[Any] = [sys.modules[name] for name in sys.modules if name.startswith("chat.")]
    for module in ours:
        if hasattr(module, "LEASE"):
            module.LEASE = lease


def serve(port: int) -> None:
    """The way of `chat.management.commands.serve`, the model apart."""
    sys.stdin.close()
    shorten_lease()
    from modelhost.host import host
    from tests.torture.guard import break_guard
    from tests.torture.witness import StridingWitness

    engine: Any = StridingWitness(every=float(os.environ["TORTURE_PAUSE"]))
    host.serve_with(engine)
    break_guard()
    application = import_module("llmsite.asgi").application
    server = import_module("llmsite.server").Server
    endpoint = f"tcp:port={port}:interface=127.0.0.1"
    server(application, endpoints=[endpoint], server_name="llmsite").run()
    os._exit(0)


if __name__ == "__main__":
    main()
