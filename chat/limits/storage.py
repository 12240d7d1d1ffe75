"""Room on the disk for what is asked, where the database is a file of this machine.

A response that is being generated has to be written to its end; so what is new is refused
while there is still room for what runs.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from django.conf import settings
from django.db import connection


class DiskFull(Exception):
    """Less than the reserve is free."""

    def __init__(self) -> None:
        super().__init__("The server's disk is nearly full: nothing new is stored.")


def check() -> None:
    """Raises DiskFull. Another machine's disk is that machine's business."""
    if connection.vendor != "sqlite":
        return
    folder = Path(connection.settings_dict["NAME"]).parent
    if shutil.disk_usage(folder).free < settings.LLMSITE_DISK_RESERVE:
        raise DiskFull
