"""The real servers over a scripted model: `python -m tests.e2e.scripted_server SERVER PORT`.

SERVER is serve, daphne or uvicorn: the same entry points as their commands have; or prepare,
which makes the database and prints a key. The model answers the prompt `NAME COUNT` with COUNT
words, a character every SCRIPT_PAUSE seconds. A file named `lose-the-engine` in the data folder
is the engine's death on a device that it cannot survive.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Hand the model over, then be that server's command line."""
    # A background job of a shell ignores the keyboard, and so does what it starts; servers obey.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmsite.settings")
    django.setup()
    server, port = sys.argv[1:]
    if server == "prepare":
        prepare()
        return
    from modelhost.host import host
    from tests.witness import WitnessEngine

    class Mortal(WitnessEngine):
        """Dies when the file appears."""

        def when_lost(self, call: Callable[[], None]) -> None:
            threading.Thread(target=at_the_file, args=(call,), daemon=True).start()

    engine: Any = Mortal(every=float(os.environ["SCRIPT_PAUSE"]))
    host.serve_with(engine)
    {"serve": serve, "daphne": daphne, "uvicorn": uvicorn}[server](port)


def prepare() -> None:
    """What `manage.py serve` does by itself before it serves."""
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    from chat.models import ApiKey

    call_command("migrate", interactive=False, verbosity=0)
    ada = get_user_model().objects.create_superuser("ada", password="a long enough secret")
    sys.stdout.write(ApiKey.issue(user=ada)[1])


def at_the_file(call: Callable[[], None]) -> None:
    """Say what an engine says whose CUDA context is gone."""
    pause = threading.Event()
    while not (Path(os.environ["LLMSITE_DATA"]) / "lose-the-engine").exists():
        pause.wait(0.05)
    call()


def serve(port: str) -> None:
    """`manage.py serve`"""
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", "serve", "--port", port])


def daphne(port: str) -> None:
    """`daphne llmsite.asgi:application`"""
    from daphne.cli import CommandLineInterface

    CommandLineInterface().run(["-p", port, "--verbosity", "1", "llmsite.asgi:application"])


def uvicorn(port: str) -> None:
    """`uvicorn llmsite.asgi:application`"""
    from uvicorn.main import main as command

    command(["--port", port, "--log-level", "info", "llmsite.asgi:application"])


if __name__ == "__main__":
    main()
