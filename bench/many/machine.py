"""Where and of what a measurement was made."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from bench.many.processes import ROOT


def described(threads: int) -> str:
    """One paragraph: date, machine, versions, commit."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB of memory, {accelerator()}, "
        f"Python {platform.python_version()}, {packages}, {threads} torch threads in each process, "
        f"commit {commit()}."
    )


def processor() -> str:
    """The CPU's own name."""
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()


def accelerator() -> str:
    """The CUDA device's name, in a process of its own: torch need not be here."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    return output(sys.executable, "-c", code) or "no GPU"


def devices() -> list[str]:
    """What can be measured here."""
    return ["cpu"] if accelerator() == "no GPU" else ["cpu", "cuda"]


def commit() -> str:
    """The commit, and whether files differ from it."""
    changed = bool(output("git", "status", "--porcelain", "--untracked-files=no"))
    return output("git", "rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def output(*command: str) -> str:
    """What a command prints; nothing when it fails."""
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return made.stdout.strip()
