"""Ways to break a checkpoint's folder, for its tests."""

from __future__ import annotations

import json
import os

from modelhost.types import ModelSpec


def spec_of(folder):
    return ModelSpec(model=str(folder), device="cpu")


def edit(name, **changes):
    """A way to break a folder: other values in one of its JSON files."""

    def change(folder):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | changes))

    return change


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def cut(name, size):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def pipe(name):
    """A way to break a folder: reading this file waits for somebody who writes."""

    def change(folder):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change
