"""What importing costs: the web side never brings the model's libraries in."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {"types", "errors", "host", "ticket", "wakeups"}  # of modelhost

SCRIPT = """
import importlib, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "llmsite.settings"
import django
django.setup()
importlib.import_module("{module}")
from django.urls import get_resolver
get_resolver().url_patterns
heavy = {{"torch", "transformers", "numpy", "safetensors"}} & set(sys.modules)
sys.exit(f"imported: {{heavy}}" if heavy else 0)
"""


@pytest.mark.parametrize(
    "module",
    [
        "llmsite.urls",
        "chat.lifecycle.supervisor",
        "chat.management.commands.serve",
        "chat.management.commands.ask",
    ],
)
def test_importing_the_web_side_leaves_the_models_libraries_alone(module):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(module=module)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


SERVER = """
import os, sys
from llmsite import asgi
from chat.limits.request_slots import request_slots
from modelhost.host import host
os._exit(0 if host.gather == request_slots.settle else 1)
"""


def test_a_servers_engine_lets_requests_that_arrive_together_be_read_first(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SERVER],
        env={
            **os.environ,
            "DATABASE_URL": f"sqlite:///{tmp_path / 'rows.sqlite3'}",
            "LLMSITE_MODEL": str(tmp_path / "none"),
        },
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_web_side_knows_modelhosts_public_surface_and_nothing_else():
    used = {
        (file.name, name)
        for part in ("chat", "llmsite")
        for file in (ROOT / part).rglob("*.py")
        for name in used_of_modelhost(ast.parse(file.read_text()))
    }

    assert len(used) > 20
    assert {name for _, name in used} <= PUBLIC, sorted(used)


def used_of_modelhost(tree: ast.AST) -> Iterator[str]:
    """Its modules that are imported; what stands under TYPE_CHECKING is no import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "modelhost":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modelhost."):
            yield (node.module or "").split(".")[1]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("modelhost."):
                    yield alias.name.split(".")[1]
        yield from used_of_modelhost(node)
