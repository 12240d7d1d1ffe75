"""Processes that die at every step of their work: `python -m … crash accept|recover MOST`.

Prepares once, then forks a process for each step. With `accept` the k-th one asks through the
real route and dies at its k-th step, until one lives to its end; then a process recovers what
they left and asks everything again with the same keys. With `recover` the k-th one dies while
it goes on with a response that another left.

On standard output, as lines of JSON, what the clients were told: [step, what, value]. The last
step's "lived" says whether the process that should die there came to its end instead.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.torture.countdown import KILLED, Countdown
from tests.torture.preload import in_child, preload
from tests.torture.server import make_accounts, shorten_lease

WORDS = 6
PAUSE = threading.Event()


def main() -> None:
    """Every step, until one process lives to its end."""
    preload()
    assert in_child(make_accounts) == 0
    key = json.loads((Path(os.environ["LLMSITE_DATA"]) / "keys.json").read_text())[0]

    for step in range(1, int(sys.argv[2]) + 1):
        if sys.argv[1] == "recover":
            in_child(lambda step=step: accept(key, step, dies_when_told=True))
            code = in_child(lambda step=step: recover(dies_at=step))
            in_child(recover)
        else:
            code = in_child(lambda step=step: accept(key, step, dies_at=step))
        if code != KILLED:
            break
    assert code in (0, KILLED)
    say(step, "lived", code == 0)
    in_child(recover)
    in_child(lambda: ask_again(key, step))


def prepare() -> None:
    """What a process of the product has for itself; quick, for its waits are not the point."""
    shorten_lease()
    from modelhost.host import host
    from tests.torture.guard import break_guard
    from tests.torture.witness import StridingWitness

    module: Any = import_module("chat.lifecycle.supervisor")
    module.COMMIT_EVERY = 0.02
    module.LOOK_EVERY = 0.05
    engine: Any = StridingWitness(every=0.015)
    host.serve_with(engine)
    break_guard()


def accept(key: str, number: int, *, dies_at: int = 0, dies_when_told: bool = False) -> None:
    """One prompt's way from its acceptance to its end."""

    prepare()
    supervisor: Any = import_module("chat.lifecycle.supervisor").supervisor
    Countdown(dies_at).watch()
    asyncio.run(ask(key, number, told=lambda: os._exit(KILLED) if dies_when_told else None))
    wait_until(lambda: not supervisor.active)
    supervisor.stop()


def recover(*, dies_at: int = 0) -> None:
    """A process over what others left; it ends when nothing is open."""
    from django.db import connections

    from chat.models import Response

    prepare()
    supervisor: Any = import_module("chat.lifecycle.supervisor").supervisor
    open_rows = Response.objects.filter(status__in=Response.ACTIVE)
    if dies_at:
        watched = Countdown(dies_at)
        supervisor.start(recover=True)
        watched.watch()
        wait_until(lambda: supervisor.active)
        wait_until(lambda: not supervisor.active)
    else:
        supervisor.start(recover=True)
        wait_until(lambda: not open_rows.exists())
    connections.close_all()
    supervisor.stop()


def ask_again(key: str, steps: int) -> None:
    """The clients of all steps try again."""
    prepare()
    for step in range(1, steps + 1):
        asyncio.run(ask(key, step))


async def ask(key: str, number: int, *, told: Callable[[], None] = lambda: None) -> None:
    """Ask in a stream; say the acknowledgement when it comes, and then what was read."""
    from django.test import AsyncClient

    from tests.torture.reading import Reading

    response: Any = await AsyncClient().post(
        "/chat/new/message/",
        json.dumps({"prompt": f"p{number} {WORDS}", "stream": True}),
        content_type="application/json",
        headers={
            "Authorization": f"Bearer {key}",
            "Idempotency-Key": f"step {number}",
        },
    )
    if response.status_code != 200:
        say(number, "refused", f"{response.status_code} {response.content!r}")
        return
    reading = Reading()
    async for chunk in response.streaming_content:
        first = not reading.message_id
        reading.take(chunk.decode().split("\n")[:-1])
        if first:
            say(number, "told", reading.message_id)
            told()
    say(number, "read", reading.text)


def say(number: int, what: str, value: object) -> None:
    """Out at once: the process may end with its next statement."""
    sys.stdout.write(json.dumps([number, what, value]) + "\n")
    sys.stdout.flush()


def wait_until(look: Callable[[], object]) -> None:
    """Until it is so; whoever started this process limits its time."""
    while not look():
        PAUSE.wait(0.01)


if __name__ == "__main__":
    main()
