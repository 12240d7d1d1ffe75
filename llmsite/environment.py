"""What the settings are made from: variables of the environment, and files that are made once."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key

NO = ("false", "off", "no", "n", "0")


class Environment(environ.Env):
    """Variables as they stand, and mistakes in them as sentences.

    django-environ takes a text that begins with `$` for another variable's name, which
    would lose a persona like "$5 menu bot" and one in fifty secret keys.
    """

    def __init__(self, **scheme: Any) -> None:
        super().__init__(**scheme)
        self._read: set[Any] = set()

    def get_value(self, var: Any, *arguments: Any, **options: Any) -> Any:
        """What django-environ reads everything through that is not read below."""
        self._read.add(var)
        return super().get_value(var, *arguments, **options)

    def str(self, var: Any, default: Any = "", multiline: bool = False) -> Any:
        self._read.add(var)
        return os.environ.get(var, default)

    def path(self, var: Any, default: Any = "") -> Any:
        """A file or folder; `~` is the home folder also where no shell has put that in."""
        text = self.str(var) or default
        if not text.startswith("~"):
            return text
        try:
            return os.fspath(Path(text).expanduser())
        except RuntimeError:
            raise ImproperlyConfigured(f"{var} is {text!r}, and there is no such home.") from None

    def int(self, var: Any, default: Any = 0) -> Any:
        return self._number(var, default, int)

    def float(self, var: Any, default: Any = 0.0) -> Any:
        return self._number(var, default, float)

    def seconds(self, var: Any, default: Any = 0.0) -> Any:
        """A duration, which may be none."""
        value = self.float(var, default)
        if not 0 <= value < threading.TIMEOUT_MAX:  # NaN fails both
            raise ImproperlyConfigured(f"{var} is {value:g}; seconds are needed, 0 or more.")
        return value

    def bool(self, var: Any, default: Any = False) -> Any:
        """Yes or no; django-environ takes every word that it does not know for a no."""
        text = self.str(var).strip().lower()
        if text and text not in (*self.BOOLEAN_TRUE_STRINGS, *NO):
            raise ImproperlyConfigured(f"{var} is {text!r}; true or false is needed.")
        return text in self.BOOLEAN_TRUE_STRINGS if text else default

    def list(self, var: Any, default: Any = ()) -> Any:
        """Texts, separated by commas and perhaps by spaces; the default where there is none."""
        return [text.strip() for text in self.str(var).split(",") if text.strip()] or [*default]

    def hosts(self, var: Any, default: Any) -> Any:
        """Names of this server, separated by commas."""
        names = self.list(var, default)
        if odd := [name for name in names if not _is_host(name)]:
            raise ImproperlyConfigured(
                f"{var} has {odd[0]!r}; a name without a scheme and a port is needed, as "
                "chat.example.org or [::1]."
            )
        return names

    def sites(self, var: Any) -> Any:
        """Origins whose pages count as ours; `https://*.example.org` is all below that name."""
        found = self.list(var)
        if odd := [text for text in found if not _is_origin(text.replace("://*.", "://", 1))]:
            raise ImproperlyConfigured(
                f"{var} has {odd[0]!r}; origins without a path are needed, as "
                "https://chat.example.org."
            )
        return found

    def origins(self, var: Any) -> Any:
        """Origins of pages, as a browser names them, or `*` for all; none where none is given."""
        found = self.list(var)
        odd = [text for text in found if text != "*" and not _is_origin(text)]
        if odd or ("*" in found and len(found) > 1):
            raise ImproperlyConfigured(
                f"{var} has {(odd or found)[0]!r}; origins without a path are needed, as "
                "https://chat.example.org, or * alone."
            )
        return found

    def choice(self, var: Any, options: Sequence[Any], default: Any) -> Any:
        """One of these texts; an empty one is left out."""
        value = self.str(var) or default
        if value not in options:
            named = ", ".join(option for option in options[:-1] if option)
            raise ImproperlyConfigured(f"{var} is {value!r}; {named} or {options[-1]} is needed.")
        return value

    def count(self, var: Any, default: Any) -> Any:
        """A whole number from 1 on."""
        value = self.int(var, default)
        if value is not None and value < 1:
            raise ImproperlyConfigured(f"{var} is {value}; a number from 1 on is needed.")
        return value

    def unread(self, prefix: Any) -> Sequence[Any]:
        """Variables that begin so and that nobody has asked for."""
        return sorted(name for name in os.environ.keys() - self._read if name.startswith(prefix))

    def _number(self, var: Any, default: Any, kind: Any) -> Any:
        text = self.str(var)
        try:
            return kind(text) if text else default
        except ValueError:
            raise ImproperlyConfigured(f"{var} is {text!r}, which is no number.") from None


def _is_host(text: str) -> bool:
    """As Django compares it with a request's, from which it has taken the port."""
    return bool(re.fullmatch(r"[^\s/:]+|\[[0-9a-fA-F:.]+\]", text))


def _is_origin(text: str) -> bool:
    """Scheme, host and perhaps a port, in small letters, and nothing else (RFC 6454)."""
    return bool(re.fullmatch(r"https?://([a-z0-9._-]+|\[[0-9a-f:]+\])(:\d+)?", text))


def made_private(folder: Path, variable: str) -> None:
    """The folder, for its owner alone. Raises ImproperlyConfigured."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(
            f"{variable} is {str(folder)!r}, and there can be no such folder ({error.strerror})."
        ) from error


def kept_secret_key(file: Path) -> str:
    """The key of this installation, made on the first start and readable by its owner only.

    It appears whole or not at all, also when two processes start at once or one is killed.
    """
    if not file.exists():
        try:
            handle, name = tempfile.mkstemp(dir=file.parent)
        except OSError as error:
            raise ImproperlyConfigured(
                f"LLMSITE_DATA is {str(file.parent)!r}, where nothing can be written "
                f"({error.strerror}). Set SECRET_KEY if that is meant."
            ) from error
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
