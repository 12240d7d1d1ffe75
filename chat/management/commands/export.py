"""`manage.py export [FILTERS] > log.jsonl`: the log as JSON lines."""

from __future__ import annotations

import errno
import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from chat.log.datasets import Format
from chat.log.exports import Export
from chat.management.choice import add_filters, chosen

ENCODING = "utf-8"  # JSON's, whatever the terminal's is


class Command(BaseCommand):
    """Reads a batch at a time: the service may run meanwhile, and the log be of any length."""

    help = "Write responses as JSON lines, oldest first, to stdout or to a new file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--format", choices=Format.values, default=Format.RECORDS.value)
        parser.add_argument("--output", type=Path, help="a new file, readable by you only")
        add_filters(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        export = Export(chosen(options), Format(options["format"]), verdicts=True)
        if options["output"] is None:
            self._print(export)
            return
        write(export, options["output"])
        self.stderr.write(f"{export.count} responses in {options['output']}.")

    def _print(self, export: Export) -> None:
        """All of it on stdout. Raises CommandError."""
        if reconfigure := getattr(self.stdout, "reconfigure", None):
            reconfigure(encoding=ENCODING)
        try:
            for piece in export:
                self.stdout.write(piece, ending="")
            self.stdout.flush()
        except BrokenPipeError:  # `| head` has seen enough
            leave_unsaid(self.stdout)
        except OSError as error:
            leave_unsaid(self.stdout)
            raise CommandError(f"stdout: {error.strerror}.") from error


def leave_unsaid(out: Any) -> None:
    """What could not be written goes nowhere: Python would try again at its end, and complain."""
    with suppress(OSError):  # what is no file of the system has no number
        number = out.fileno()
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), number)


def write(export: Export, path: Path) -> None:
    """All of it under this name, or nothing. Raises CommandError."""
    try:
        if path.exists():
            raise FileExistsError(errno.EEXIST, "There is such a file already", str(path))
        with (
            _unwound_by_signals(),
            NamedTemporaryFile(
                "w", encoding=ENCODING, dir=path.parent, prefix=f".{path.name}."
            ) as part,
        ):
            part.writelines(export)
            part.flush()
            os.fsync(part.fileno())
            os.link(part.name, path)  # which fails where somebody else was faster
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}.") from error


@contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end the process as Ctrl-C does: nothing half stays behind."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, lambda number, frame: sys.exit(128 + number))  # as shells say it
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
