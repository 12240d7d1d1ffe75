"""The command line of `make bench`."""

from __future__ import annotations

import argparse
import os

EXTRAS = ("own-route", "arrivals", "second-turn", "threads", "lag", "followers", "steady", "start")


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options. `--quick` shows that everything runs; its figures mean nothing."""
    made = argparse.ArgumentParser(
        "python -m bench.many", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--model", default="demo", help="a model folder, or demo")
    made.add_argument("--devices", default="", help="cpu,cuda; empty is all that there are")
    made.add_argument("--dtype", default="float32")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="torch's, per process")
    made.add_argument("--clients", type=numbers, default=[1, 8, 32, 64])
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--tokens", type=int, default=16, help="of each answer, at most")
    made.add_argument("--longest", type=int, default=1500, help="tokens of a prompt, at most")
    made.add_argument("--rate", type=float, default=1.0, help="arrivals per second")
    made.add_argument("--arrivals", type=int, default=24)
    made.add_argument("--followers", type=int, default=1000)
    made.add_argument("--minutes", type=float, default=1.0, help="of the steady load")
    made.add_argument("--patience", type=float, default=60, help="seconds to wait for quiet")
    made.add_argument("--without", type=words, default=[], help="contenders to leave out")
    made.add_argument("--only", type=words, default=[], help=f"rounds, {', '.join(EXTRAS)}")
    made.add_argument("--quick", action="store_true", help="tiny sizes, nothing is written")
    made.add_argument("--no-write", action="store_true", help="leave docs/figures.md as it is")
    options = made.parse_args(arguments)
    if options.quick:
        options.no_write, options.patience = True, 0.0
        options.clients, options.rounds, options.tokens = [1, 2], 2, 6
        options.longest, options.arrivals, options.followers, options.minutes = 40, 3, 20, 0.1
    return options


def wanted(options: argparse.Namespace, part: str) -> bool:
    """Whether this part is to be measured."""
    return not options.only or part in options.only


def numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def words(text: str) -> list[str]:
    return [one for one in text.split(",") if one]
