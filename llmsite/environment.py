"""What the settings are made from: variables of the environment, and files that are made once."""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key


class Environment(environ.Env):
    """Variables as they stand, and mistakes in them as sentences.

    django-environ takes a text that begins with `$` for another variable's name, which
    would lose a persona like "$5 menu bot" and one in fifty secret keys.
    """

    def str(self, var: Any, default: Any = "", multiline: bool = False) -> Any:
        return os.environ.get(var, default)

    def int(self, var: Any, default: Any = 0) -> Any:
        return self._number(var, default, int)

    def float(self, var: Any, default: Any = 0.0) -> Any:
        return self._number(var, default, float)

    def seconds(self, var: Any, default: Any = 0.0) -> Any:
        """A duration, which may be none."""
        value = self.float(var, default)
        if not 0 <= value < threading.TIMEOUT_MAX:  # not a number is none of both
            raise ImproperlyConfigured(f"{var} is {value:g}; seconds are needed, 0 or more.")
        return value

    def _number(self, var: Any, default: Any, kind: Any) -> Any:
        text = os.environ.get(var, "")
        try:
            return kind(text) if text else default
        except ValueError:
            raise ImproperlyConfigured(f"{var} is {text!r}, which is no number.") from None


def kept_secret_key(file: Path) -> str:
    """The key of this installation, made on the first start and readable by its owner only.

    It appears whole or not at all, also when two processes start at once or one is killed.
    """
    if not file.exists():
        handle, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "w") as stream:
            stream.write(get_random_secret_key())
            stream.flush()
            os.fsync(handle)
        with suppress(FileExistsError):
            os.link(name, file)
        Path(name).unlink()
    key = file.read_text(errors="replace").strip()
    if not key:
        raise ImproperlyConfigured(f"{file} is empty. Remove it, or set SECRET_KEY.")
    return key
