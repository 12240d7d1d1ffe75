"""docs/modules.md: every module with the first line of its docstring. `python -m tests.modules`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "modules.md"
PACKAGES = ("llmsite", "chat", "modelhost", "bench")
HEAD = """# Every module, in one line each

From their docstrings, by `python -m tests.modules`. How they work together:
[architecture.md](architecture.md).
"""


def page() -> str:
    """What the file has to say."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    files.sort(key=lambda file: (file.parent, file.name))
    parts = [HEAD]
    for folder, inside in groupby(files, key=lambda file: file.parent):
        if lines := list(_described(inside)):
            about = _first_line(folder / "__init__.py")
            head = [f"## {folder.relative_to(ROOT)}/", "", about, "", "| | |", "|---|---|"]
            parts.append("\n".join([*head, *lines, ""]))
    return "\n".join(parts)


def _described(files: Iterator[Path]) -> Iterator[str]:
    for file in files:
        if "migrations" not in file.parts and file.name != "__init__.py" and _first_line(file):
            yield f"| `{file.name}` | {_first_line(file)} |"


def _first_line(file: Path) -> str:
    said = ast.get_docstring(ast.parse(file.read_text()))
    return said.splitlines()[0] if said else ""


if __name__ == "__main__":
    FILE.write_text(page())
