#!/usr/bin/env python
"""Django's command line."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import Error

from chat.database import OUTDATED, outage

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmsite.settings")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"{error} See docs/configuration.md.")
    except Error as error:
        if not (sentence := outage(error)) or "--traceback" in sys.argv:
            raise
        more = " `manage.py migrate` prepares it." if sentence == OUTDATED else ""
        sys.exit(f"{sentence}{more} It says: {error}".strip())
