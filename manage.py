#!/usr/bin/env python
"""Django's command line."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import Error

from chat.database import OUTDATED, outage

INTERRUPTED = 130  # what shells say of a command that ended by Ctrl-C


def open_missing_streams() -> None:
    """Standard streams that were closed lead nowhere: Python has none then, and says so only
    when somebody writes. In this order each gets its number, which a later file would have."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


if __name__ == "__main__":
    open_missing_streams()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmsite.settings")
    try:
        execute_from_command_line(sys.argv)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except ImproperlyConfigured as error:
        sys.exit(f"{error} See docs/configuration.md.")
    except Error as error:
        if not (sentence := outage(error)) or "--traceback" in sys.argv:
            raise
        more = " `manage.py migrate` prepares it." if sentence == OUTDATED else ""
        sys.exit(f"{sentence}{more} It says: {error}".strip())
