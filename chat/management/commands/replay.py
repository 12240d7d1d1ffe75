"""`manage.py replay [FILTERS]`: logged prompts once more, and whether the answers are the same."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet

from chat.log.replays import Agreement, Replay, replayable, replays
from chat.management.choice import add_filters, chosen
from chat.model_spec import spec
from chat.models import Response, shorten
from modelhost.errors import ModelHostError
from modelhost.host import host

LIMIT = 100
BATCH = 50


class Command(BaseCommand):
    """Loads the model in this process. Fails when an answer differs, so that a script can tell."""

    help = "Ask the newest of the chosen prompts again, as they were asked, and compare."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--limit", type=int, default=LIMIT, help="so many at most")
        add_filters(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["limit"] < 1:
            raise CommandError("--limit: At least 1 is required.")
        rows = newest(replayable(chosen(options)), options["limit"])
        counts: Counter[Agreement] = Counter()
        host.start(spec(), terminal=sys.stderr.isatty())
        try:
            for replay in replays(rows, host.wait()):
                counts[replay.agreement] += 1
                self.stdout.write(line(replay))
        except ModelHostError as error:
            raise CommandError(str(error)) from error
        finally:
            host.unload()
        said = f"{', '.join(f'{counts[one]} {one}' for one in Agreement)}."
        if counts[Agreement.DIFFERS]:
            raise CommandError(said)
        self.stdout.write(said)


def newest(rows: QuerySet[Response], limit: int) -> Iterator[Response]:
    """So many of the rows, in their order, a few in memory at a time and no query that stays open.

    Which ones they are is known before the first is asked; one that is deleted then is left out.
    """
    keys = list(rows.values_list("pk", flat=True)[: min(limit, sys.maxsize)])
    for at in range(0, len(keys), BATCH):
        yield from rows.filter(pk__in=keys[at : at + BATCH])


def line(replay: Replay) -> str:
    """One answer's line: what came of it, which one it is, and what was asked or differs."""
    return printable(f"{replay.agreement:10} {replay.response.pk.hex} {_said(replay)}")


def _said(replay: Replay) -> str:
    if replay.agreement is Agreement.IMPOSSIBLE:
        return replay.reason
    if replay.agreement is Agreement.SAME:
        return shorten(replay.response.prompt.content)
    return f"before: {shorten(replay.before)!r} now: {shorten(replay.now)!r}"


def printable(text: str) -> str:
    """A text of somebody else's for a terminal, which must not do what control characters say."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
