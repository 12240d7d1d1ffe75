"""What the web side carries when the engine costs nothing: `python -m bench.web`.

A witness that makes a token of every answer every 10 ms stands where a card would; a token is a
character. Everything else is as `manage.py serve` has it: keys, rows in SQLite, events. So the
table says how many tokens a second the service can bring to its clients at most, and what of
Python's time, which the engine of a card needs as well, that takes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bench.many.cells import measure, percentile
from bench.many.contenders import Contender, remote, running, worker
from bench.many.conversations import Conversation
from bench.many.jobs import Job
from bench.many.machine import described
from bench.many.servers import Launch, Setup
from bench.many.tables import table

EVERY = 0.01  # seconds between two tokens of an answer
MODEL = "witness-model"
WORDS = 1000  # of a witness's answer, longer than any that is asked for


def main() -> None:
    """Serve, or measure and print."""
    made = argparse.ArgumentParser("python -m bench.web", description=__doc__)
    made.add_argument("--serve", type=int, help="only serve, on this port")
    made.add_argument(
        "--clients", default="1,8,32,128", help="how many at a time, one after another"
    )
    made.add_argument("--tokens", type=int, default=256, help="of each answer")
    made.add_argument("--rounds", type=int, default=3)
    options = made.parse_args()
    if options.serve:
        serve(options.serve)
        return
    print(described(threads=1))
    print(compare([int(one) for one in options.clients.split(",")], options.tokens, options.rounds))


def serve(port: int) -> None:
    """`manage.py serve` over a witness."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmsite.settings")
    import django

    django.setup()
    from django.core.management import call_command

    from modelhost.host import host
    from tests.torture.witness import StridingWitness

    host.serve_with(StridingWitness(every=EVERY, stride=1))  # type: ignore[arg-type]
    call_command("serve", port=str(port))


def compare(clients: list[int], tokens: int, rounds: int) -> str:
    """A line for each number of clients, its best round: a witness does not vary, machines do."""
    head = ["clients", "tokens/s", "of the engine's", "first piece p50", "next piece p95",
            "pieces/s", "CPU s / 1,000 tokens"]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bench-") as workspace:
        setup = Setup(Path(MODEL), "cpu", Path(workspace), 1)
        with running(launch(setup), setup) as server:
            generator = worker("bench.many.generator", [], setup)
            try:
                ours = remote(server, generator)
                rows = [line(ours, several, tokens, rounds) for several in clients]
            finally:
                generator.stop()
    return table(head, rows)


def launch(setup: Setup) -> Launch:
    """This file, as a server."""
    command = [sys.executable, "-m", "bench.web", "--serve", "{port}"]
    data = {"LLMSITE_DATA": tempfile.mkdtemp(prefix="data-", dir=setup.workspace)}
    return Launch("llmsite", "openai", command, "/healthz", "/readyz", data)


def line(ours: Contender, clients: int, tokens: int, rounds: int) -> list[str]:
    """The best of some rounds. Raises RuntimeError when an answer is not what a witness says."""
    load = Job(
        [Conversation(f"c{index}", (f"c{index} {WORDS}",)) for index in range(clients)],
        max_tokens=tokens,
        clients=clients,
    )
    cells = [measure(ours, load, len) for _ in range(rounds)]
    for answer in (answer for cell in cells for answer in cell.answers):
        if answer.trouble or len(answer.text) != tokens:
            raise RuntimeError(f"{answer.name}: {answer.trouble or answer.text!r}")
    best = max(cells, key=lambda cell: cell.rate)
    pieces = sum(len(answer.pieces) for answer in best.answers)
    return [
        str(clients),
        f"{best.rate:.0f}",
        f"{best.rate * EVERY / clients:.0%}",
        f"{best.first:.2f} s",
        f"{percentile(best.gaps, 0.95) * 1000:.0f} ms",
        f"{pieces / best.seconds:.0f}",
        f"{best.cpu_per_thousand:.2f}",
    ]


if __name__ == "__main__":
    main()
