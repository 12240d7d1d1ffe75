"""Files of a folder: which there are, what names their content, and how a sentence lists them."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from pathlib import Path

from modelhost.errors import LoadFailed

LONGEST_FOLDER_NAME = 180  # characters; it stands on every response, an adapter's with its revision


def first_of(names: Collection[str]) -> str:
    """For a sentence: the first of these names, and how many more there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{next(iter(names))}{more}"


def fingerprint(files: list[Path]) -> str:
    """A short name for a folder's content: names and sizes of all, bytes of the small ones.

    Raises LoadFailed.
    """
    digest = sha256()
    for file in sorted(files):
        try:
            size = file.stat().st_size
            small = file.read_bytes() if file.suffix == ".json" else b""
        except OSError as error:  # it has just gone, or is not ours to read
            raise LoadFailed(
                f"{file} cannot be read ({error.strerror}). Check the folder and its permissions."
            ) from error
        digest.update(f"{file.name}:{size}\n".encode())
        digest.update(small)
    return digest.hexdigest()[:12]


def present(folder: Path, patterns: Collection[str]) -> list[Path]:
    """Files in a folder that match; no folders, pipes or links that lead nowhere."""
    found = {file for pattern in patterns for file in folder.glob(pattern)}
    return sorted(file for file in found if file.is_file())


def name_of(folder: Path) -> str:
    """What is in this folder is called so. Raises LoadFailed for a name that no row could keep."""
    name = folder.resolve().name
    shown = name.encode(errors="replace").decode()
    if len(name) > LONGEST_FOLDER_NAME or shown != name:
        raise LoadFailed(
            f"The folder's name is kept with every response, so it must be UTF-8 of at most "
            f"{LONGEST_FOLDER_NAME} characters: rename {shown}."
        )
    return name
