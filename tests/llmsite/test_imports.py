"""What importing costs: the web side never brings the model's libraries in."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
        "chat.supervisor",
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
