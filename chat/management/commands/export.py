"""`manage.py export [FILTERS] > log.jsonl`: the log as JSON lines."""

from __future__ import annotations

import errno
import os
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from chat.datasets import Format
from chat.exports import Export
from chat.management.choice import add_filters, chosen


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
            with suppress(BrokenPipeError):  # `| head` has seen enough
                self._print(export)
            return
        write(export, options["output"])
        self.stderr.write(f"{export.count} responses in {options['output']}.")

    def _print(self, export: Export) -> None:
        for lines in export:
            self.stdout.write(lines, ending="")


def write(export: Export, path: Path) -> None:
    """All of it under this name, or nothing. Raises CommandError."""
    try:
        if path.exists():
            raise FileExistsError(errno.EEXIST, "There is such a file already", str(path))
        with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.") as part:
            part.writelines(export)
            part.flush()
            os.fsync(part.fileno())
            os.link(part.name, path)  # which fails where somebody else was faster
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}.") from error
